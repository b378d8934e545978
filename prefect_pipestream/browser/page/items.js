// Items as a sample's page shows them: each as what it is.
import { button, h, tell } from "./dom.js";
import { editing, metadataForm } from "./forms.js";

/** The picture of an item; `overlay` is the address of one that is laid over it. */
function picture(item, overlay) {
  const image = (source, attributes) => h("img", { src: source, ...attributes });
  const layers = [image(item.picture, { alt: `${item.key}: ${item.facts.join(", ")}` })];
  if (overlay) layers.push(image(overlay, { alt: "", class: "overlay" }));
  return h("div", { class: "pictures" }, layers);
}

/** A dialog with every pixel of a picture, which a wheel, + and − make larger or smaller. */
export function zoom(item, overlay) {
  let scale = 1;
  const whole = (address) => (address.startsWith("data:") ? address : `${address}&whole=true`);
  const shown = h("div", { class: "pictures zoomed" }, h("img", { src: whole(item.picture), alt: item.key }));
  if (overlay) shown.append(h("img", { src: whole(overlay), alt: "", class: "overlay" }));
  const resize = (factor) => {
    scale = Math.min(32, Math.max(1 / 16, scale * factor));
    for (const image of shown.children) image.style.width = `${image.naturalWidth * scale}px`;
  };
  const dialog = h(
    "dialog", { class: "zoom", "aria-label": `${item.key}, enlarged` },
    h("form", { method: "dialog" },
      button("Larger", "+", () => resize(2)), button("Smaller", "-", () => resize(0.5)), h("button", {}, "Close")),
    h("div", { class: "scrolled" }, shown),
  );
  dialog.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    resize(event.deltaY < 0 ? 1.25 : 0.8);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "-") resize(event.key === "+" ? 2 : 0.5);
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** An item; `edit` takes edits of it, and says whether they could be made, or is null where nothing can be changed. */
export function itemView(item, { overlay = null, edit = null, isAsText = false, onText = null } = {}) {
  const change = item.is_shared ? null : edit; // a save of one sample writes nothing of what all share
  const marks = [item.item_class, item.file, item.is_shared ? "shared by all samples" : null, ...item.facts];
  const title = h("h3", {}, item.key, item.is_changed ? h("strong", { class: "changed" }, " unsaved") : null);
  return h(
    "article", { class: "item", "data-key": item.key, "aria-label": item.key },
    title, h("p", { class: "facts" }, marks.filter(Boolean).join(" · ")),
    item.problem ? h("p", { class: "error" }, item.problem) : null,
    item.picture
      ? h("button", { type: "button", class: "plain", title: "Enlarge", "aria-label": `Enlarge ${item.key}`, onclick: () => zoom(item, overlay) }, picture(item, overlay))
      : null,
    content(item, change, isAsText, onText),
    change ? upload(item.key, change) : null,
    change ? h("p", {}, button("Remove", null, () => edit({ do: "remove-item", key: item.key }), { "aria-label": `Remove ${item.key}` })) : null,
  );
}

function content(item, edit, isAsText, onText) {
  if (item.kind === "metadata" && item.text !== null) {
    if (!edit) return h("pre", {}, item.text);
    if (item.value === null) return textField(item, edit); // it has values that no form can keep as they are
    const other = button(isAsText ? "As a form" : "As text", null, () => onText(item.key, !isAsText));
    const shown = isAsText ? textField(item, edit) : metadataForm(item, edit);
    return h("div", {}, shown, other);
  }
  if (item.table) return table(item.table);
  return item.text === null ? null : h("pre", {}, item.text);
}

function textField(item, edit) {
  const field = h("textarea", { rows: "12", cols: "60", "aria-label": `${item.key} as text` });
  field.defaultValue = item.text;
  return editing(field, (text) => edit({ do: "set-text", key: item.key, text }));
}

function table(rows) {
  const lines = rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, String(cell)))));
  return h("div", { class: "scrolled" }, h("table", {}, lines));
}

function upload(key, edit) {
  const field = h("input", { type: "file", "aria-label": `Replace ${key} by a file` });
  field.addEventListener("change", async () => {
    const [file] = field.files;
    if (!file) return;
    try {
      await edit({ do: "upload", key, file_name: file.name, content: await asBase64(file) });
    } catch (error) {
      tell(`${file.name} cannot be read: ${error.message}`, true);
    }
  });
  return h("details", {}, h("summary", {}, "Replace by a file"), field);
}

function asBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.replace(/^[^,]*,/, "")));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

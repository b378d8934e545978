// Elements, made without markup: whatever a name or a value says, it is text.

/** An element with attributes, listeners (`onclick`) and children: elements, texts, or nothing. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A button; `key` is the key that does the same, shown to whoever points at it. */
export function button(label, key, onclick, attributes = {}) {
  const title = key ? `${label} (${key})` : label;
  return h("button", { type: "button", title, "aria-keyshortcuts": key, onclick, ...attributes }, label);
}

export const number = (count) => count.toLocaleString("en");

/** Moves the focus among elements, by so many; to the first where none of them has it. */
export function step(elements, by) {
  const all = [...elements];
  const at = all.indexOf(document.activeElement);
  all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by))]?.focus();
}

/** Tells something in the line that screen readers read out. */
export function tell(text, isError = false) {
  const line = document.getElementById("told");
  line.textContent = text;
  line.classList.toggle("error", isError);
}

/** Asks with a dialog; gives the value of the button that was pressed, "" for none. */
export function ask(title, choices, ...content) {
  return new Promise((resolve) => {
    const buttons = choices.map(([value, label]) => h("button", { value }, label));
    const form = h("form", { method: "dialog" }, h("h2", {}, title), content, h("p", {}, buttons));
    const dialog = h("dialog", { "aria-label": title }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

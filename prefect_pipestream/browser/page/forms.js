// Forms: for metadata, and for the arguments of stages, of which there is a JSON schema.
import { button, h, tell } from "./dom.js";
import { Exact, canBeExact, exactly } from "./api.js";

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i; // as JSON has them

const isMapping = (value) => value !== null && typeof value === "object" && !Array.isArray(value) && !(value instanceof Exact);
// What a field can show and give back as it was; what it cannot is there as text.
const isPlain = (value) => value === null || typeof value === "boolean" || value instanceof Exact || (typeof value === "string" && !value.includes("\r"));
const escaped = (name) => name.replace(/[\\.[\]]/g, "\\$&");

/**
 * A field whose text becomes an edit on Enter, when it is left, and whenever its page asks for that by
 * `commit()`, which says whether the edit could be made. `defaultValue` is the text that is an edit, or
 * saved, already: where `value` is another one, it was typed and is no edit yet.
 */
export function editing(field, set) {
  let last = Promise.resolve(true);
  field.commit = () => {
    const before = field.defaultValue;
    if (field.value === before) return last;
    field.defaultValue = field.value;
    last = Promise.resolve(set(field.value)).then((isTaken) => {
      if (isTaken) return true;
      field.defaultValue = before;
      last = Promise.resolve(true); // nothing is on its way any more
      return false;
    });
    return last;
  };
  field.dataset.edits = "";
  field.addEventListener("change", field.commit);
  field.addEventListener("blur", () => field.isConnected && field.commit());
  if (field.matches("input")) field.addEventListener("keydown", (event) => event.key === "Enter" && field.commit());
  return field;
}

/** Metadata as fields; what is deeper than a form shows is there as text. Each edit says whether it could be made. */
export function metadataForm(item, edit) {
  const fields = [...leaves(item.value, escaped(item.key))].map(([path, label, value]) => {
    const set = (found) => edit({ do: "set-value", path, value: found });
    return h("label", { class: "field" }, h("span", {}, label), valueField(value, set, `${item.key}: ${label}`));
  });
  return h("div", { class: "fields" }, fields, isMapping(item.value) ? newField(item, edit) : null);
}

function* leaves(value, path, label = "", depth = 0) {
  const entries = isMapping(value)
    ? Object.entries(value).map(([name, part]) => [`${path}.${escaped(name)}`, label ? `${label}.${name}` : name, part])
    : Array.isArray(value) && value.length <= 20
      ? value.map((part, i) => [`${path}[${i}]`, `${label}[${i}]`, part])
      : null;
  if (isPlain(value)) yield [path, label || "value", value];
  if (entries === null || depth > 3) return;
  for (const [below, name, part] of entries) yield* leaves(part, below, name, depth + 1);
}

/** A field for a plain value, which keeps its type: text stays text, a float a float. */
function valueField(value, set, label) {
  if (typeof value === "boolean") {
    const check = h("input", { type: "checkbox", checked: value, "aria-label": label });
    check.addEventListener("change", async () => {
      if (!(await set(check.checked))) check.checked = !check.checked;
    });
    return check;
  }
  if (value instanceof Exact) {
    const field = h("input", { inputmode: "decimal", value: value.text, "aria-label": label });
    const isFloat = !isInteger(value.text);
    return editing(field, (text) => {
      const found = text.trim();
      if (NUMBER.test(found)) return set(new Exact(isFloat && isInteger(found) ? `${found}.0` : found));
      tell(`${label}: ${JSON.stringify(text)} is no number. Expected one like ${value.text}; another kind of value is set as text.`, true);
      return false;
    });
  }
  if (value === null) {
    const field = h("input", { placeholder: "null", "aria-label": label });
    return editing(field, (text) => set(parsed(text)));
  }
  const field = value.includes("\n") ? h("textarea", { rows: "3", cols: "40", "aria-label": label }) : h("input", { "aria-label": label });
  field.defaultValue = value;
  return editing(field, set);
}

const isInteger = (text) => /^-?\d+$/.test(text);

function newField(item, edit) {
  const name = h("input", { placeholder: "new name", "aria-label": `New name in ${item.key}` });
  const value = h("input", { placeholder: "value", "aria-label": `New value in ${item.key}` });
  const add = async () => {
    if (!name.value) return;
    for (const field of [name, value]) field.defaultValue = field.value; // not kept, once it is there
    const isTaken = await edit({ do: "set-value", path: `${escaped(item.key)}.${escaped(name.value)}`, value: parsed(value.value) });
    if (!isTaken) for (const field of [name, value]) field.defaultValue = "";
  };
  return h("p", { class: "field" }, name, value, button("Add", null, add));
}

/** What somebody typed: JSON where it is that, else text. */
export function parsed(text) {
  if (!canBeExact && /\d{16}/.test(text)) return text; // its digits would not all be kept
  try {
    return exactly(text);
  } catch {
    return text;
  }
}

/** The form of a stage's arguments; `read()` gives those that differ from the defaults. */
export function stageForm(schema, keysOfImages) {
  const fields = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const field = argumentField(name, resolved(property, schema), keysOfImages);
    const isNeeded = (schema.required ?? []).includes(name);
    const text = `${name}${isNeeded ? " (needed)" : ""}`;
    return [name, field, h("label", { class: "field", title: property.description ?? "" }, h("span", {}, text), field.element)];
  });
  const element = h("div", { class: "fields" }, h("p", {}, schema.description ?? ""), fields.map(([, , label]) => label));
  const read = () => {
    const found = fields.map(([name, field]) => [name, field.read()]);
    return Object.fromEntries(found.filter(([, value]) => value !== undefined));
  };
  return { element, read };
}

function resolved(property, schema) {
  const reference = property.$ref ?? property.allOf?.[0]?.$ref;
  return reference ? { ...schema.$defs[reference.split("/").pop()], ...property } : property;
}

function argumentField(name, property, keysOfImages) {
  const choices = property.enum ?? property.anyOf?.find((one) => one.enum)?.enum;
  if (choices) {
    const options = ["", ...choices].map((one) => h("option", { value: JSON.stringify(one), selected: one === property.default }, String(one)));
    const select = h("select", {}, options);
    return { element: select, read: () => (select.value === '""' ? undefined : JSON.parse(select.value)) };
  }
  if (property.type === "boolean") {
    const check = h("input", { type: "checkbox", checked: Boolean(property.default) });
    return { element: check, read: () => check.checked };
  }
  const given = name === "images" && keysOfImages.length ? keysOfImages : property.default;
  const text = given === undefined || given === null ? "" : typeof given === "string" ? given : JSON.stringify(given);
  const field = h("input", { value: text, placeholder: property.type ?? "JSON" });
  const isText = property.type === "string";
  return { element: field, read: () => (field.value === "" ? undefined : isText ? field.value : parsed(field.value)) };
}

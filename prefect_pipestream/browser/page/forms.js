// Forms: for metadata, and for the arguments of stages, of which there is a JSON schema.
import { button, h } from "./dom.js";

const isMapping = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isPlain = (value) => value === null || ["string", "number", "boolean"].includes(typeof value);
const escaped = (name) => name.replace(/[\\.[\]]/g, "\\$&");

/** Metadata as fields; what is deeper than a form shows is there as text. */
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

/** A field for a plain value, which keeps its type: text stays text, a number a number. */
function valueField(value, set, label) {
  if (typeof value === "boolean") {
    const check = h("input", { type: "checkbox", checked: value, "aria-label": label });
    check.addEventListener("change", () => set(check.checked));
    return check;
  }
  if (typeof value === "number") {
    const field = h("input", { type: "number", step: "any", value: String(value), "aria-label": label });
    field.addEventListener("change", () => field.value !== "" && set(Number(field.value)));
    return field;
  }
  const field = h("input", { value: value ?? "", placeholder: value === null ? "null" : "", "aria-label": label });
  field.addEventListener("change", () => set(field.value));
  return field;
}

function newField(item, edit) {
  const name = h("input", { placeholder: "new name", "aria-label": `New name in ${item.key}` });
  const value = h("input", { placeholder: "value", "aria-label": `New value in ${item.key}` });
  const add = () => name.value && edit({ do: "set-value", path: `${escaped(item.key)}.${escaped(name.value)}`, value: parsed(value.value) });
  return h("p", { class: "field" }, name, value, button("Add", null, add));
}

/** What somebody typed: JSON where it is that, else text. */
export function parsed(text) {
  try {
    return JSON.parse(text);
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

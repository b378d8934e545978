// What became of items: pictures of before and after, and the differences in words.
import { h } from "./dom.js";
import { zoom } from "./items.js";

const SIDE = "128";

/** The changes of a sample's items. */
export const changesView = (idx, items) => h("div", { class: "changes" }, items.map((item) => changeView(idx, item)));

function changeView(idx, { key, kind, before, after, differences }) {
  const states = [["before", before], ["after", after]];
  const hasPicture = states.some(([, state]) => state?.picture);
  return h(
    "div", { class: "change", "data-key": key },
    h("p", { class: "facts" }, h("strong", {}, key), ` ${kind}`),
    hasPicture ? h("div", { class: "states" }, states.map(([when, state]) => stateView(idx, key, when, state))) : null,
    states.map(([when, state]) => trouble(when, state)),
    differences.length ? h("ul", {}, differences.map((line) => h("li", {}, line))) : null,
  );
}

function trouble(when, state) {
  if (state?.problem) return h("p", { class: "error" }, `${when}: ${state.problem}`);
  return state && !state.is_kept ? h("p", { class: "facts" }, `what it was ${when} is not kept any more`) : null;
}

function stateView(idx, key, when, state) {
  const name = `${key} of sample ${idx} ${when}`;
  return h("figure", {}, state?.picture ? picture(name, state.picture) : h("span", { class: "none" }, state ? "no picture" : "none"), h("figcaption", {}, when));
}

function picture(name, address) {
  const image = h("img", { src: address, alt: name, width: SIDE, height: SIDE });
  const enlarge = h("button", {
    type: "button", class: "plain", title: "Enlarge", "aria-label": `Enlarge ${name}`, onclick: () => zoom({ key: name, picture: address }, null),
  }, image);
  image.addEventListener("error", () => enlarge.replaceWith(h("span", { class: "none" }, "no picture")));
  return enlarge;
}

/** A time, as the person's machine writes it. */
export const when = (text) => (text ? new Date(text).toLocaleString() : "");

/** The address of a run's page; `folder` tells it from others of the same key. */
export function runAddress(key, folder = null) {
  const query = new URLSearchParams(folder === null ? { key } : { key, folder });
  return `/run?${query}`;
}

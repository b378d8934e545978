// Many samples: a page of thumbnails, those that a query finds, and which are selected.
import { button, h, tell } from "./dom.js";
import { get, thumbnail } from "./api.js";
import { every } from "./live.js";
import { Many } from "./many.js";
import { Ranges, rangesOf } from "./ranges.js";

const PAGE = 120;
const SIDE = 112;

export class Grid {
  constructor(app, query) {
    this.app = app;
    this.app.list ??= { where: "", sort: "", isDescending: false, first: 0, image: null, mask: "", ranges: new Ranges([]), selected: new Set() };
    this.state = this.app.list;
    if (query.has("where") && query.get("where") !== this.state.where) Object.assign(this.state, { where: query.get("where"), first: 0 });
    this.versions = {};
    this.asked = 0;
    this.keys = [
      ["/", "to the filter", () => this.where.focus()],
      ["n", "next page", () => this.turn(1)],
      ["p", "previous page", () => this.turn(-1)],
      ["x", "select, or not, the sample in focus", () => this.toggle(document.activeElement)],
      ["e", "select all of this page, or none", () => this.selectPage()],
      ...(app.about.is_read_only ? [] : [["m", "change many", () => this.changeMany()]]),
      ["ArrowRight", "next sample", () => this.step(1)],
      ["ArrowLeft", "previous sample", () => this.step(-1)],
      ["ArrowDown", "sample below", () => this.step(this.columns())],
      ["ArrowUp", "sample above", () => this.step(-this.columns())],
    ];
    this.where = h("input", {
      size: "40", value: this.state.where, placeholder: "metadata.label == 3 and not HAS mask", "aria-keyshortcuts": "/",
    });
    this.sort = h("input", { size: "16", value: this.state.sort, placeholder: "metadata.label", onchange: () => this.sortBy() });
    this.descending = h("input", { type: "checkbox", checked: this.state.isDescending, onchange: () => this.sortBy() });
    this.image = h("select", { onchange: () => this.choose("image", this.image.value) });
    this.mask = h("select", { onchange: () => this.choose("mask", this.mask.value) });
    this.count = h("output", { id: "count" });
    this.note = h("p", { id: "note", role: "note" });
    this.place = h("output", { id: "place" });
    this.picked = h("output", { id: "selected" });
    this.cells = h("div", { id: "cells", class: "cells" });
    const filter = h(
      "form",
      { role: "search", onsubmit: (event) => { event.preventDefault(); this.filter(this.where.value); } },
      h("label", {}, "Where ", this.where), h("button", {}, "Filter"),
      button("All", null, () => { this.where.value = ""; this.filter(""); }),
      h("label", {}, "Sort by ", this.sort), h("label", {}, this.descending, " descending"),
    );
    const shown = h("p", {}, h("label", {}, "Picture ", this.image), h("label", {}, "Overlay ", this.mask), this.count, this.picked,
      button("Select page", "e", () => this.selectPage()), app.about.is_read_only ? "" : button("Change many", "m", () => this.changeMany()));
    const turns = h("p", {}, button("Previous page", "p", () => this.turn(-1)), this.place, button("Next page", "n", () => this.turn(1)));
    this.place_of_many = h("div");
    this.element = h("section", { "aria-label": "Samples" }, filter, shown, this.place_of_many, this.note, this.cells, turns);
  }

  async load() {
    this.noteAddress();
    const keys = await get("/api/keys");
    const pictures = keys.filter(({ kind }) => kind === "image" || kind === "array").map(({ key }) => key);
    const images = keys.filter(({ kind }) => kind === "image").map(({ key }) => key);
    this.imageKeys = images;
    this.state.image ??= images[0] ?? pictures[0] ?? "";
    fill(this.image, pictures.length ? pictures : [""], this.state.image);
    fill(this.mask, ["", ...pictures], this.state.mask);
    try {
      await this.find();
    } finally {
      this.live = [every(1000, () => this.look()), every(2000, () => this.find())];
    }
  }

  close() {
    for (const stop of this.live ?? []) stop();
    this.asked = NaN;
    this.many?.close();
  }

  mayLeave = () => true;
  hasChanges = () => false;

  filter(where) {
    Object.assign(this.state, { where: where.trim(), first: 0 });
    this.noteAddress();
    return this.find().catch((error) => tell(error.message, true));
  }

  sortBy() {
    Object.assign(this.state, { sort: this.sort.value.trim(), isDescending: this.descending.checked, first: 0 });
    return this.find().catch((error) => tell(error.message, true));
  }

  /** The address has the filter: it can be kept, sent to others, and gone back to. */
  noteAddress() {
    history.replaceState(null, "", this.state.where ? `/?${new URLSearchParams({ where: this.state.where })}` : "/");
  }

  /** Asks which samples the query finds, again and again until that is known of all. */
  async find() {
    const asked = (this.asked += 1);
    for (;;) {
      const found = await get("/api/found", { where: this.state.where, sort: this.state.sort, descending: this.state.isDescending });
      if (asked !== this.asked) return; // another question came meanwhile
      this.state.ranges = new Ranges(found.ranges);
      this.say(found);
      await this.show();
      if (found.known === found.of) return;
    }
  }

  say({ count, known, of, warning }) {
    const share = Math.floor((100 * known) / Math.max(of, 1));
    const part = known === of ? "" : ` of the first ${share} %`;
    this.count.textContent = `${count.toLocaleString("en")} of ${of.toLocaleString("en")} samples${part}`;
    this.note.textContent = warning ?? "";
  }

  /** Shows the page: cells that are there already stay, with what is focused or selected. */
  async show() {
    const { ranges, first } = this.state;
    this.state.first = Math.min(first, Math.max(0, Math.floor((ranges.count - 1) / PAGE) * PAGE));
    const indices = ranges.slice(this.state.first, this.state.first + PAGE);
    const pages = Math.max(1, Math.ceil(ranges.count / PAGE));
    this.place.textContent = `Page ${this.state.first / PAGE + 1} of ${pages.toLocaleString("en")}`;
    this.sayPicked();
    const there = [...this.cells.children].map((cell) => Number(cell.dataset.idx));
    if (there.join() === indices.join()) return;
    const showing = (this.showing = indices.join());
    const versions = indices.length ? await get("/api/versions", { indices }) : {};
    if (showing !== this.showing) return; // another page was turned to meanwhile
    this.versions = versions;
    this.cells.replaceChildren(...indices.map((idx) => this.cell(idx)));
  }

  cell(idx) {
    const check = h("input", {
      type: "checkbox", checked: this.state.selected.has(idx), "aria-label": `Select sample ${idx}`,
      onchange: () => this.select(idx, check.checked),
    });
    const link = h("a", { href: `/sample/${idx}` }, h("span", { class: "pictures" }, this.pictures(idx)), h("span", {}, String(idx)));
    return h("div", { class: "cell", "data-idx": String(idx) }, check, link);
  }

  pictures(idx) {
    const keys = [this.state.image, this.state.mask].filter(Boolean);
    return keys.map((key, layer) => {
      const picture = h("img", {
        src: thumbnail(idx, key, this.versions[idx] ?? "", SIDE), alt: `${key} of sample ${idx}`,
        class: layer ? "overlay" : null, width: String(SIDE), height: String(SIDE),
      });
      picture.addEventListener("error", () => picture.replaceWith(h("span", { class: "none" }, layer ? "" : "no picture")));
      return picture;
    });
  }

  /** Shows anew what changed since it was shown. */
  async look() {
    const indices = Object.keys(this.versions).map(Number);
    if (!indices.length) return;
    const now = await get("/api/versions", { indices });
    for (const idx of indices.filter((one) => one in this.versions && now[one] !== this.versions[one])) {
      this.versions[idx] = now[idx];
      if (now[idx] === "absent") continue; // its cell goes as soon as the samples are asked for anew
      const cell = this.cells.querySelector(`[data-idx="${idx}"]`);
      cell?.querySelector(".pictures").replaceChildren(...this.pictures(idx));
    }
  }

  choose(what, key) {
    this.state[what] = key;
    for (const cell of this.cells.children) {
      cell.querySelector(".pictures").replaceChildren(...this.pictures(Number(cell.dataset.idx)));
    }
  }

  turn(pages) {
    const first = this.state.first + pages * PAGE;
    if (first < 0 || first >= this.state.ranges.count) return;
    this.state.first = first;
    this.show().catch((error) => tell(error.message, true));
  }

  columns() {
    const [first, ...others] = this.cells.children;
    const below = others.findIndex((cell) => cell.offsetTop > first.offsetTop);
    return below < 0 ? others.length + 1 : below + 1;
  }

  step(by) {
    const links = [...this.cells.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    links[at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
  }

  toggle(element) {
    const check = element.closest(".cell")?.querySelector("input");
    if (check) this.select(Number(element.closest(".cell").dataset.idx), (check.checked = !check.checked));
  }

  select(idx, isSelected) {
    this.state.selected[isSelected ? "add" : "delete"](idx);
    this.sayPicked();
  }

  sayPicked() {
    const { size } = this.state.selected;
    this.picked.textContent = size ? `${size.toLocaleString("en")} selected` : "";
  }

  selectPage() {
    const checks = [...this.cells.querySelectorAll("input")];
    const isSelected = checks.some((check) => !check.checked);
    for (const check of checks) {
      check.checked = isSelected;
      this.state.selected[isSelected ? "add" : "delete"](Number(check.closest(".cell").dataset.idx));
    }
    this.sayPicked();
  }

  /** Opens the form for one change to those that are selected; where none is, to all that are found. */
  changeMany() {
    const images = () => this.imageKeys;
    this.many?.close();
    this.many = new Many(this.app, () => this.meant(), images, () => this.find());
    this.place_of_many.replaceChildren(this.many.element);
    this.many.what.focus();
  }

  meant() {
    const { selected, ranges } = this.state;
    if (selected.size) return { ranges: rangesOf(selected), count: selected.size, name: `the ${selected.size.toLocaleString("en")} selected` };
    return { ranges: ranges.ranges, count: ranges.count, name: `all ${ranges.count.toLocaleString("en")} found`, where: this.state.where };
  }
}

function fill(select, values, chosen) {
  select.replaceChildren(...values.map((value) => h("option", { value, selected: value === chosen }, value || "none")));
}

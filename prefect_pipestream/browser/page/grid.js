// Many samples: a page of thumbnails, those that a query finds, and which are selected.
import { button, h, number, step, tell } from "./dom.js";
import { get } from "./api.js";
import { every } from "./live.js";
import { Jobs } from "./jobs.js";
import { Many } from "./many.js";
import { Ranges, rangesOf } from "./ranges.js";

const PAGE = 120;
const PICTURED = 24; // samples whose pictures are asked for at once: those of a page come in parts
const SIDE = 112;

export class Grid {
  constructor(app, query) {
    this.app = app;
    this.app.list ??= { where: "", sort: "", isDescending: false, first: 0, image: null, mask: "", ranges: new Ranges([]), selected: new Set() };
    this.state = this.app.list;
    if (query.has("where") && query.get("where") !== this.state.where) Object.assign(this.state, { where: query.get("where"), first: 0 });
    this.versions = {}; // of the samples of the page, as they were when their pictures were made
    this.awaited = new Set(); // samples whose pictures are on their way
    this.asked = 0;
    this.isAllKnown = false; // which samples the query finds
    this.keys = [
      ["/", "to the filter", () => this.where.focus()],
      ["n", "next page", () => this.turn(1)],
      ["p", "previous page", () => this.turn(-1)],
      ["x", "select, or not, the sample in focus", () => this.toggle(document.activeElement)],
      ["e", "select all of this page, or none", () => this.selectPage()],
      ...(app.about.is_read_only ? [] : [
        ["m", "change many", () => this.changeMany()],
        ["S", "stop the change that is being made", () => this.jobs.stop()],
      ]),
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
    this.jobs = new Jobs(app, (job) => {
      if (job.counts.removed) this.state.selected.clear(); // some of them are not there any more
      this.sayPicked();
      this.find().catch((error) => tell(error.message, true));
    });
    this.element = h("section", { "aria-label": "Samples" }, filter, shown, this.place_of_many, this.jobs.element, this.note, this.cells, turns);
  }

  async load() {
    this.noteAddress();
    this.jobs.load().catch((error) => tell(error.message, true));
    try {
      await Promise.all([this.findKeys(), this.find()]);
    } finally {
      if (!this.isClosed) this.live = [every(1000, () => this.look()), every(2000, () => this.isFinding || this.find())];
    }
  }

  /** Asks which items there are to be pictured, and pictures the samples that are shown already. */
  async findKeys() {
    const keys = await get("/api/keys");
    const pictures = keys.filter(({ kind }) => kind === "image" || kind === "array").map(({ key }) => key);
    const images = keys.filter(({ kind }) => kind === "image").map(({ key }) => key);
    this.imageKeys = images;
    this.state.image ??= images[0] ?? pictures[0] ?? "";
    fill(this.image, pictures.length ? pictures : [""], this.state.image);
    fill(this.mask, ["", ...pictures], this.state.mask);
    this.picture(this.page().filter((idx) => !(idx in this.versions) && !this.awaited.has(idx)));
  }

  close() {
    this.isClosed = true;
    for (const stop of this.live ?? []) stop();
    this.jobs.close();
  }

  mayLeave = () => true;
  hasChanges = () => false;

  filter(where) {
    Object.assign(this.state, { where: where.trim(), first: 0 });
    this.noteAddress();
    return this.ask();
  }

  sortBy() {
    Object.assign(this.state, { sort: this.sort.value.trim(), isDescending: this.descending.checked, first: 0 });
    return this.ask();
  }

  /** Asks something else than before: what was said of that, and what was to be done with it, goes. */
  ask() {
    tell("");
    this.isAllKnown = false;
    this.many?.forget();
    return this.find().catch((error) => tell(error.message, true));
  }

  /** The address has the filter: it can be kept, sent to others, and gone back to. */
  noteAddress() {
    history.replaceState(history.state, "", this.state.where ? `/?${new URLSearchParams({ where: this.state.where })}` : "/");
  }

  /** Asks which samples the query finds, again and again until that is known of all. */
  async find() {
    const asked = (this.asked += 1);
    this.isFinding = true;
    try {
      await this.findAll(() => asked !== this.asked || this.isClosed);
    } finally {
      if (asked === this.asked) this.isFinding = false;
    }
  }

  /** Shows what is known, until that is all or `isOver()`: another question came meanwhile. */
  async findAll(isOver) {
    for (;;) {
      const { where, sort, isDescending: descending } = this.state;
      const found = await get("/api/found", { where, sort, descending }).catch((error) => {
        if (!isOver()) throw error;
      });
      if (isOver()) return;
      this.state.ranges = new Ranges(found.ranges);
      this.isAllKnown = found.known === found.of;
      this.say(found);
      this.show();
      if (found.known === found.of) return;
    }
  }

  say({ count, known, of, warning }) {
    const share = Math.floor((100 * known) / Math.max(of, 1));
    const part = known === of ? "" : ` of the first ${share} %`;
    this.count.textContent = `${number(count)} of ${number(of)} samples${part}`;
    this.note.textContent = warning ?? "";
  }

  /** The samples of the page that is turned to. */
  page() {
    return this.state.ranges.slice(this.state.first, this.state.first + PAGE);
  }

  /** Shows the page: cells that are there already stay, with what is focused or selected. */
  show() {
    const { ranges, first } = this.state;
    this.state.first = Math.min(first, Math.max(0, Math.floor((ranges.count - 1) / PAGE) * PAGE));
    const pages = Math.max(1, Math.ceil(ranges.count / PAGE));
    this.place.textContent = `Page ${number(this.state.first / PAGE + 1)} of ${number(pages)}`;
    this.sayPicked();
    const indices = this.page();
    const there = new Map([...this.cells.children].map((cell) => [Number(cell.dataset.idx), cell]));
    if ([...there.keys()].join() === indices.join()) return;
    this.versions = Object.fromEntries(indices.filter((idx) => idx in this.versions).map((idx) => [idx, this.versions[idx]]));
    const focused = document.activeElement;
    this.cells.replaceChildren(...indices.map((idx) => there.get(idx) ?? this.cell(idx)));
    if (this.cells.contains(focused)) focused.focus({ preventScroll: true }); // which it lost as it was moved
    this.picture(indices.filter((idx) => !there.has(idx)));
  }

  /** The items of which pictures are shown, the lowest first. */
  layers = () => [this.state.image, this.state.mask].filter(Boolean);

  /** Asks for the pictures of samples, and shows those that are of the page still as they come. */
  picture(indices) {
    for (let at = 0; at < indices.length; at += PICTURED) {
      this.picturePart(indices.slice(at, at + PICTURED)).catch((error) => this.isClosed || tell(error.message, true));
    }
  }

  async picturePart(indices) {
    const keys = this.layers();
    if (!keys.length) return;
    for (const idx of indices) this.awaited.add(idx);
    try {
      const found = await get("/api/pictures", { indices, keys, side: SIDE });
      if (this.isClosed || keys.join() !== this.layers().join()) return;
      for (const [idx, one] of Object.entries(found)) this.showPictures(Number(idx), keys, one);
    } finally {
      for (const idx of indices) this.awaited.delete(idx);
    }
  }

  showPictures(idx, keys, { version, pictures, problems }) {
    const cell = this.cells.querySelector(`[data-idx="${idx}"]`);
    if (!cell) return; // another page was turned to meanwhile
    this.versions[idx] = version;
    if (version === "absent") return; // its cell goes as soon as the samples are asked for anew
    cell.querySelector(".pictures").replaceChildren(...keys.map((key, layer) => {
      if (!pictures[layer]) return h("span", { class: "none", title: problems[layer] }, layer ? "" : "no picture");
      return h("img", {
        src: pictures[layer], alt: `${key} of sample ${idx}`, class: layer ? "overlay" : null, width: String(SIDE), height: String(SIDE),
      });
    }));
  }

  cell(idx) {
    const check = h("input", {
      type: "checkbox", checked: this.state.selected.has(idx), "aria-label": `Select sample ${idx}`,
      onchange: () => this.select(idx, check.checked),
    });
    const link = h("a", { href: `/sample/${idx}` }, h("span", { class: "pictures" }), h("span", {}, String(idx)));
    return h("div", { class: "cell", "data-idx": String(idx) }, check, link);
  }

  /** Shows anew what changed since it was shown, and what could not be shown yet. */
  async look() {
    const indices = this.page();
    if (!indices.length || !this.layers().length) return;
    const now = await get("/api/versions", { indices });
    this.picture(indices.filter((idx) => now[idx] !== this.versions[idx] && !this.awaited.has(idx)));
  }

  choose(what, key) {
    this.state[what] = key;
    this.picture(this.page());
  }

  turn(pages) {
    const first = this.state.first + pages * PAGE;
    if (first < 0 || first >= this.state.ranges.count) return;
    this.state.first = first;
    this.show();
  }

  columns() {
    const [first, ...others] = this.cells.children;
    const below = others.findIndex((cell) => cell.offsetTop > first.offsetTop);
    return below < 0 ? others.length + 1 : below + 1;
  }

  step(by) {
    step(this.cells.querySelectorAll("a"), by);
  }

  toggle(element) {
    const check = element.closest(".cell")?.querySelector("input");
    if (check) this.select(Number(element.closest(".cell").dataset.idx), (check.checked = !check.checked));
  }

  select(idx, isSelected) {
    this.selectAll([idx], isSelected);
  }

  selectAll(indices, isSelected) {
    for (const idx of indices) this.state.selected[isSelected ? "add" : "delete"](idx);
    this.sayPicked();
    this.many?.forget();
  }

  sayPicked() {
    const { size } = this.state.selected;
    this.picked.textContent = size ? `${number(size)} selected` : "";
  }

  selectPage() {
    const { selected } = this.state;
    const page = this.page(); // whose cells may be on their way
    this.selectAll(page, page.some((idx) => !selected.has(idx)));
    for (const cell of this.cells.children) cell.querySelector("input").checked = selected.has(Number(cell.dataset.idx));
  }

  /** Opens the form for one change to those that are selected; where none is, to all that are found. */
  changeMany() {
    const images = () => this.imageKeys;
    this.many = new Many(this.app, () => this.meant(), images, this.jobs);
    this.place_of_many.replaceChildren(this.many.element);
    this.many.what.focus();
  }

  meant() {
    const { selected, ranges } = this.state;
    if (selected.size) return { ranges: rangesOf(selected), count: selected.size, name: `the ${number(selected.size)} selected` };
    if (!this.isAllKnown) return { refusal: "Which samples are found is not known yet: wait until it is, or select some." };
    if (!ranges.count) return { refusal: "No sample is meant: select some, or filter." };
    return { ranges: ranges.ranges, count: ranges.count, name: `all ${number(ranges.count)} found`, where: this.state.where };
  }
}

function fill(select, values, chosen) {
  select.replaceChildren(...values.map((value) => h("option", { value, selected: value === chosen }, value || "none")));
}

// One sample: its items, edits of it that nobody else sees, and the save.
import { ask, button, h, tell } from "./dom.js";
import { exactly, get, post } from "./api.js";
import { History, undoOf } from "./history.js";
import { stageForm } from "./forms.js";
import { itemView } from "./items.js";
import { every } from "./live.js";

const TURN = { rotate: 90 };

/** An id that nobody else makes; `crypto.randomUUID` is not there without TLS. */
const randomId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export class SamplePage {
  constructor(app, idx) {
    this.app = app;
    this.idx = idx;
    this.edits = [];
    this.waiting = 0; // edits that the server has not answered yet
    this.lost = []; // saves without a good answer: each may have been made
    this.undone = []; // commits of this page that were saved, to be taken back, the last one last
    this.asText = new Set();
    this.overlay = app.list?.mask || null;
    this.isReadOnly = app.about.is_read_only;
    this.keys = [
      ["ArrowRight j", "next sample", () => this.beside(true)],
      ["ArrowLeft k", "previous sample", () => this.beside(false)],
      ["g", "to all samples", () => app.go("/")],
      ["o", "overlay a mask, or not", () => this.toggleOverlay()],
      ["t", "show its history, or not", () => this.history.toggle()],
      ["z", "enlarge the first picture", () => this.items.querySelector("button.plain")?.click()],
      ...(this.isReadOnly ? [] : [
        ["s", "save (also Ctrl+s)", () => this.save()],
        ["b", "what it was before the edits, or after", () => this.toggleBefore()],
        ["u", "undo the last save", () => this.undo()],
        ["Backspace", "drop the last edit", () => this.dropLast()],
        ["r", "rotate by 90° (again for more)", () => this.turn(TURN)],
        ["h", "flip left and right", () => this.turn({ flip: "horizontal" })],
        ["v", "flip top and bottom", () => this.turn({ flip: "vertical" })],
        ["a", "apply a stage", () => this.chooseStage()],
        ["x", "remove an item", () => this.chooseItem()],
        ["D", "discard all edits", () => this.discard()],
        ["m", "in a conflict: keep mine", () => this.conflict.querySelector("[aria-keyshortcuts=m]")?.click()],
        ["y", "in a conflict: take theirs", () => this.conflict.querySelector("[aria-keyshortcuts=y]")?.click()],
      ]),
    ];
    this.title = h("h1", {}, `Sample ${idx}`);
    this.mark = h("strong", { id: "unsaved", role: "status" });
    this.conflict = h("div", { id: "conflict" });
    this.items = h("div", { class: "items", oninput: () => this.showState() });
    this.left = h("p", { role: "note" });
    this.list = h("ol", { id: "edits", "aria-label": "Unsaved edits" });
    this.history = new History(this);
    this.element = h("section", { "aria-label": `Sample ${idx}` }, this.bar(), this.conflict, this.list, this.left, this.items, this.history.element);
  }

  bar() {
    const changing = this.isReadOnly ? [] : [
      button("Save", "s", () => this.save(), { id: "save" }),
      button("Discard", "D", () => this.discard(), { id: "discard" }),
      button("Before", "b", () => this.toggleBefore(), { id: "before", "aria-pressed": "false" }),
      button("Undo last save", "u", () => this.undo(), { id: "undo" }),
      button("Rotate", "r", () => this.turn(TURN)),
      button("Flip left/right", "h", () => this.turn({ flip: "horizontal" })),
      button("Flip top/bottom", "v", () => this.turn({ flip: "vertical" })),
      button("Apply a stage", "a", () => this.chooseStage()),
    ];
    return h("div", { class: "bar" }, this.title,
      button("Previous", "k", () => this.beside(false)), button("Next", "j", () => this.beside(true)),
      button("Overlay", "o", () => this.toggleOverlay()), button("History", "t", () => this.history.toggle()), changing, this.mark);
  }

  // Whatever changes what is here, or on disk, has its turn after what was asked for before it.

  inTurn(act) {
    const run = () => (this.isClosed ? undefined : act());
    return (this.last = (this.last ?? Promise.resolve()).then(run, run));
  }

  again = () => this.inTurn(() => this.readAgain());

  async load() {
    await this.again();
    this.live = every(1000, () => this.look());
  }

  close() {
    this.live?.();
    this.isClosed = true;
  }

  hasChanges = () => this.edits.length + this.waiting + this.typed().length > 0;

  /** The fields with a text that is no edit yet. */
  typed = () => [...this.items.querySelectorAll("[data-edits]")].filter((field) => field.value !== field.defaultValue);

  /** Makes edits of what was typed; says whether all of it could be. */
  async commit() {
    const fields = [...this.items.querySelectorAll("[data-edits]")];
    const taken = await Promise.all(fields.map((field) => field.commit()));
    return taken.every(Boolean);
  }

  /** Whether the page may be left: what is unsaved is asked about, after all that is on its way. */
  async mayLeave() {
    if (!this.hasChanges()) return true;
    const committed = this.commit();
    return this.inTurn(async () => {
      await committed;
      return this.mayLose();
    });
  }

  /** Does, in one turn, what reads the sample anew: what is unsaved is asked about before. */
  afterAsking(act) {
    const committed = this.commit();
    return this.inTurn(async () => {
      await committed;
      if (await this.mayLose()) await act();
    });
  }

  async mayLose() {
    if (!this.edits.length && !this.typed().length) return true;
    const choice = await ask(`Sample ${this.idx} has unsaved changes`, [["save", "Save"], ["discard", "Discard"], ["", "Stay"]]);
    if (choice === "save") return !this.typed().length && this.saveNow(); // what is typed yet was refused, which is told
    if (choice === "discard") this.discardNow();
    return choice === "discard";
  }

  show(edited) {
    this.shown = edited;
    const isBefore = this.isBefore && this.edits.length > 0;
    const sample = isBefore ? this.saved : edited;
    this.element.querySelector("#before")?.setAttribute("aria-pressed", String(isBefore));
    const images = sample.items.filter((item) => item.picture);
    const masks = images.filter((item) => item.kind === "image" && item.facts.length && !/ × [34]$/.test(item.facts[0]));
    this.masks = masks.map((item) => item.key);
    const overlay = images.find((item) => item.key === this.overlay)?.picture ?? null;
    const edit = this.isReadOnly || isBefore ? null : (one) => this.edit(one);
    const onText = async (key, isAsText) => {
      if (!(await this.commit())) return; // what was typed would not be seen any more
      this.asText[isAsText ? "add" : "delete"](key);
      this.show(this.shown);
    };
    this.replaceItems(sample.items.map((item) => itemView(item, {
      overlay: item.key === this.overlay ? null : overlay, edit, onText, isAsText: this.asText.has(item.key),
    })));
    this.left.textContent = [
      sample.removed.length ? `Saving removes ${sample.removed.join(", ")}.` : "",
      sample.left.length ? `Saving leaves these items as they are on disk: ${sample.left.join(", ")}. Remove them by their own button, if you mean to.` : "",
    ].join(" ").trim();
    this.list.replaceChildren(...this.edits.map((one) => h("li", {}, told(one), " ", button("Drop", null, () => this.drop(one)))));
    this.showState();
  }

  /** Shows items; what was typed and is no edit yet stays, and the field in focus keeps it. */
  replaceItems(views) {
    const nameOf = (field) => JSON.stringify([field.closest("[data-key]")?.dataset.key, field.getAttribute("aria-label")]);
    const isText = (field) => field.matches("textarea, input:not([type])");
    const fieldsOf = () => [...this.items.querySelectorAll("[aria-label]:not(article)")];
    const focused = this.items.contains(document.activeElement) ? document.activeElement : null;
    const selection = focused && isText(focused) ? [focused.selectionStart, focused.selectionEnd, focused.selectionDirection] : null;
    const typed = new Map(fieldsOf().filter((field) => isText(field) && field.value !== field.defaultValue).map((field) => [nameOf(field), field.value]));
    this.items.replaceChildren(...views);
    const fields = fieldsOf();
    for (const field of fields.filter(isText)) field.value = typed.get(nameOf(field)) ?? field.value;
    if (!focused) return;
    const same = fields.find((field) => nameOf(field) === nameOf(focused));
    // A form may have become a text: keys that are typed on go there, and do nothing to the sample.
    const next = same ?? (isText(focused) ? fields.find((field) => isText(field) && field.closest("[data-key]").dataset.key === focused.closest("[data-key]").dataset.key) : null);
    next?.focus({ preventScroll: true });
    if (same && selection && isText(same)) same.setSelectionRange(...selection);
  }

  /** Says how much is unsaved; what can be done now can be pressed. */
  showState() {
    const typed = this.typed().length;
    const unsaved = this.edits.length + typed;
    this.mark.textContent = unsaved ? `${unsaved} unsaved` : "";
    for (const [id, isOn] of [["save", unsaved], ["discard", unsaved], ["before", this.edits.length], ["undo", this.undone.length]]) {
      const control = this.element.querySelector(`#${id}`);
      if (control) control.disabled = !isOn;
    }
  }

  /** Shows the sample as it was before the edits, until it is pressed again. */
  toggleBefore() {
    const committed = this.commit();
    return this.inTurn(async () => {
      if (!this.saved || !(await committed)) return;
      this.isBefore = !this.isBefore;
      this.show(this.shown);
    });
  }

  /** Adds an edit, if the server can do it, and shows what comes of it; says whether it could be. */
  edit(one) {
    if (!this.saved) return Promise.resolve(false); // there is nothing to edit
    this.waiting += 1;
    return this.inTurn(() => {
      const last = this.edits.at(-1);
      const isSame = last && last.do === one.do && last.do === "set-value" && last.path === one.path;
      return this.try([...(isSame ? this.edits.slice(0, -1) : this.edits), one]);
    }).finally(() => {
      this.waiting -= 1;
    });
  }

  /** Has these edits instead of those that are here, if the server can do them. */
  async try(edits) {
    if (!this.saved) return false; // it was removed meanwhile
    try {
      const asked = { version: this.saved.version, edits };
      const sample = edits.length ? await post(`/api/samples/${this.idx}/preview`, asked, exactly) : this.saved;
      if (this.isClosed) return false;
      this.isBefore = false;
      this.edits = edits;
      tell("");
      this.show(sample);
      return true;
    } catch (error) {
      if (this.isClosed) return false;
      tell(error.message, true);
      if (error.kind === "ConflictError") {
        this.edits = edits; // they are mine, and are to be settled with theirs
        await this.showConflict(error.message).catch((other) => tell(other.message, true));
      }
      return false; // what was typed is still in its field
    } finally {
      this.showState();
    }
  }

  drop = (one) => this.inTurn(() => this.try(this.edits.filter((other) => other !== one)));
  dropLast = () => this.inTurn(() => this.edits.length && this.try(this.edits.slice(0, -1)));
  discard = () => this.inTurn(() => this.discardNow());

  discardNow() {
    for (const field of this.typed()) field.value = field.defaultValue;
    if (!this.saved) return;
    this.conflict.replaceChildren();
    this.edits = [];
    this.isBefore = false;
    tell("");
    this.show(this.saved);
  }

  turn(how) {
    if (!this.saved) return;
    const images = this.shown.items.filter((item) => item.kind === "image").map((item) => item.key);
    return this.edit({ do: "stage", name: "rotate-flip", arguments: { ...how, images } });
  }

  async chooseStage() {
    const stages = await this.app.stages().catch((error) => tell(error.message, true));
    if (!stages || !this.saved || this.isClosed) return;
    const images = this.shown.items.filter((item) => item.kind === "image").map((item) => item.key);
    const select = h("select", { "aria-label": "Stage" }, Object.keys(stages).map((name) => h("option", { value: name }, name)));
    const place = h("div");
    let form;
    const choose = () => {
      form = stageForm(stages[select.value], images);
      place.replaceChildren(form.element);
    };
    select.addEventListener("change", choose);
    choose();
    const choice = await ask("Apply a stage", [["apply", "Preview"], ["", "Cancel"]], h("label", {}, "Stage ", select), place);
    if (choice === "apply") await this.edit({ do: "stage", name: select.value, arguments: form.read() });
  }

  async chooseItem() {
    const own = this.shown.items.filter((item) => !item.is_shared).map((item) => item.key);
    if (!this.saved || !own.length) return;
    const select = h("select", { "aria-label": "Item" }, own.map((key) => h("option", { value: key }, key)));
    const choice = await ask("Remove an item", [["remove", "Remove"], ["", "Cancel"]], h("label", {}, "Item ", select));
    if (choice === "remove") await this.edit({ do: "remove-item", key: select.value });
  }

  /** Saves all edits in one commit, with what is typed; says whether it did. */
  save() {
    const committed = this.commit();
    return this.inTurn(async () => (await committed) && this.saveNow());
  }

  async saveNow() {
    if (!this.edits.length) return true;
    const asked = this.lost.find((one) => one.edits === this.edits && one.version === this.saved.version)
      ?? { version: this.saved.version, edits: this.edits, save_id: randomId() };
    try {
      const done = await post(`/api/samples/${this.idx}/save`, asked, exactly);
      this.wasSaved(done);
      return true;
    } catch (error) {
      if (!this.lost.includes(asked)) this.lost.push(asked);
      if (error.kind === "ConflictError") await this.showConflict(error.message).catch((other) => tell(other.message, true));
      else tell(error.message, true);
      return false;
    }
  }

  wasSaved(done) {
    if (done.commit_id) this.did({ run_key: done.run_key, commit_id: done.commit_id });
    this.taken(done.sample);
    tell(done.commit_id ? `Saved: ${done.keys.join(", ")}.` : "Nothing was to be saved: all is as it was.");
  }

  /** Whether a save without a good answer was made after all: then edits that are in it are no edits any more. */
  async wasMade() {
    for (const { save_id, edits } of this.lost) {
      const done = await get(`/api/samples/${this.idx}/saves/${save_id}`, {}, exactly);
      if (!done || this.isClosed) continue;
      const left = this.edits.filter((one) => !edits.includes(one));
      const dropped = edits.filter((one) => !this.edits.includes(one));
      this.wasSaved(done);
      if (dropped.length) tell(`Saved after all, with what was dropped since: ${dropped.map(told).join("; ")}. Undo takes it back.`, true);
      this.edits = left;
      if (left.length && !(await this.try(left))) this.show(this.saved); // they are listed, and can be saved still
      return true;
    }
    return false;
  }

  /** The sample on disk is this one, and there is no edit of it. */
  taken(sample) {
    this.saved = sample;
    this.edits = [];
    this.lost = [];
    this.conflict.replaceChildren();
    this.show(sample);
    this.history.load();
  }

  // What the history needs of this page.
  version = () => this.saved?.version ?? "absent";
  did = (what) => this.undone.push(what);
  forget = (what) => {
    this.undone = this.undone.filter((one) => one.run_key !== what.run_key || one.commit_id !== what.commit_id);
  };

  /** Shows the sample as it is on disk now, or that there is none any more. */
  async readAgain() {
    try {
      const sample = await get(`/api/samples/${this.idx}`, {}, exactly);
      if (this.isClosed) return;
      if (sample.version !== "absent") this.taken(sample);
      else this.takenAway(`There is no sample ${this.idx} now.`);
    } catch (error) {
      if (error.status !== 404) throw error;
      if (!this.isClosed) this.takenAway(error.message);
    }
  }

  /** There is no such sample (any more): its history may have what it was. */
  takenAway(reason) {
    this.saved = null;
    this.edits = [];
    this.show({ items: [], removed: [], left: [] });
    this.items.replaceChildren(h("p", { class: "error" }, reason));
    if (this.history.isOpen) this.history.load();
    else this.history.toggle();
  }

  undo() {
    const committed = this.commit();
    return this.inTurn(async () => {
      await committed;
      const last = this.undone.at(-1);
      if (!last || !(await this.mayLose())) return;
      try {
        await undoOf(last);
        this.forget(last);
        await this.readAgain();
        tell(last.commit_id ? "The save was taken back." : "The restore was taken back.");
      } catch (error) {
        tell(error.message, true);
      }
    });
  }

  /** Both versions, side by side: what is on disk by now, and what is here. */
  async showConflict(reason) {
    if (await this.wasMade()) return;
    const theirs = await get(`/api/samples/${this.idx}`, {}, exactly);
    if (this.isClosed || !this.edits.length) return;
    if (theirs.version === "absent") {
      const what = "This sample was removed by somebody else. Its history can restore it; then save again, to keep your changes.";
      return void this.conflict.replaceChildren(h("p", { class: "error", role: "alert" }, what), button("Drop my changes", "y", () => this.takeTheirs(theirs)));
    }
    const side = (title, sample) => h("section", { "aria-label": title }, h("h2", {}, title), sample.items.map((item) => itemView(item)));
    this.conflict.replaceChildren(
      h("p", { class: "error", role: "alert" }, reason),
      button("Keep mine", "m", () => this.keepMine(theirs)),
      button("Take theirs", "y", () => this.takeTheirs(theirs)),
      h("details", {}, h("summary", {}, "Look at both"), h("div", { class: "both" }, side("Theirs, on disk", theirs), side("Mine, unsaved", this.shown))),
    );
  }

  /** My edits, made again to what they saved, are saved. */
  keepMine(theirs) {
    return this.inTurn(async () => {
      if (!this.conflict.childElementCount) return; // it is settled already
      const { saved } = this;
      this.saved = theirs;
      if (await this.try(this.edits)) {
        this.conflict.replaceChildren();
        await this.saveNow();
      } else this.saved = saved; // it stays to be settled
    });
  }

  takeTheirs(theirs) {
    return this.inTurn(() => {
      if (!this.conflict.childElementCount) return;
      this.discardNow();
      if (theirs.version === "absent") this.takenAway(`There is no sample ${this.idx} now.`);
      else this.taken(theirs);
    });
  }

  /** Sees what others wrote: it is shown, or, where there are edits, said. */
  async look() {
    if ((await this.versionOnDisk()) === this.version()) return; // no turn is needed, for which edits would wait
    await this.inTurn(async () => {
      const now = await this.versionOnDisk();
      if (this.isClosed || now === this.version() || this.conflict.childElementCount) return;
      if (now === "absent" && this.edits.length) return void tell("This sample was removed by somebody else. Your changes are still here, unsaved.", true);
      if (this.edits.length) return void (await this.showConflict("Somebody else changed this sample meanwhile. Your changes are still here, unsaved."));
      if (this.lost.length && (await this.wasMade())) return;
      const isInField = this.items.contains(document.activeElement) && document.activeElement.matches("input, textarea");
      if (!isInField && !this.typed().length) await this.readAgain();
    });
  }

  versionOnDisk = async () => (await get("/api/versions", { indices: [this.idx] }))[this.idx];

  toggleOverlay() {
    if (!this.saved) return;
    this.overlay = this.overlay ? null : (this.masks.find((key) => /mask|label|segm/i.test(key)) ?? this.masks[0] ?? null);
    if (this.app.list) this.app.list.mask = this.overlay ?? "";
    this.show(this.shown);
  }

  async beside(isAfter) {
    const ranges = this.app.list?.ranges;
    const idx = ranges?.count ? ranges.beside(this.idx, isAfter) : this.idx + (isAfter ? 1 : -1);
    if (idx !== null && idx >= 0) await this.app.go(`/sample/${idx}`);
  }
}

/** An edit in words. */
function told(edit) {
  if (edit.do === "set-value") return `${edit.path} = ${JSON.stringify(edit.value)}`;
  if (edit.do === "remove-item") return `${edit.key} removed`;
  if (edit.do === "set-text") return `${edit.key} as text`;
  if (edit.do === "upload") return `${edit.key} replaced by ${edit.file_name}`;
  return `${edit.name} ${JSON.stringify(edit.arguments)}`;
}

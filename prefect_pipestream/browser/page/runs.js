// The runs of a dataset: a list of them, and each on a page of its own.
import { button, h, number, step, tell } from "./dom.js";
import { get, post } from "./api.js";
import { changesView, runAddress, when } from "./changes.js";
import { Jobs } from "./jobs.js";
import { every } from "./live.js";

const OUTCOMES = ["written", "unchanged", "skipped", "failed", "removed"];
const CHANGES = 12;
const FAILURES = 100;
const counted = (count, thing) => `${number(count)} ${thing}${count === 1 ? "" : "s"}`;

function size(bytes) {
  let left = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (left < 1000) return `${unit === "B" ? left : left.toFixed(1)} ${unit}`;
    left /= 1000;
  }
  return `${left.toFixed(1)} TB`;
}

const shownName = (run) => (run.name ? `${run.name} (${run.run_key})` : run.run_key);

/** All runs, the newest first. */
export class Runs {
  constructor(app) {
    this.app = app;
    this.sizes = {};
    this.keys = [
      ["g", "to all samples", () => app.go("/")],
      ["ArrowDown j", "next run", () => this.step(1)],
      ["ArrowUp k", "previous run", () => this.step(-1)],
      ["d", "show those that were undone, or not", () => this.undone.click()],
      ...(app.about.is_read_only ? [] : [["S", "stop the change that is being made", () => this.jobs.stop()]]),
    ];
    this.undone = h("input", { type: "checkbox", onchange: () => this.show(), "aria-keyshortcuts": "d" });
    this.told = h("output", { id: "runs-told" });
    this.jobs = new Jobs(app);
    this.rows = h("tbody");
    const heads = ["Run", "State", "Who", "Started", "Last commit", ...OUTCOMES, "Undo"].map((text) => h("th", { scope: "col" }, text));
    this.element = h(
      "section", { "aria-label": "Runs" }, h("h1", {}, "Runs"), this.jobs.element,
      h("p", {}, h("label", { title: "Show those that were undone (d)" }, this.undone, " Those that were undone, too"), this.told),
      h("div", { class: "wide" }, h("table", { class: "runs" }, h("thead", {}, h("tr", {}, heads)), this.rows)),
    );
  }

  async load() {
    this.jobs.load().catch((error) => tell(error.message, true));
    await this.ask();
    if (this.isClosed) return;
    this.live = every(1500, () => this.ask());
    await this.measure();
  }

  /** Asks for what the undo of each holds, which takes a look at its files. */
  async measure() {
    const { runs, undo_bytes } = await get("/api/runs", { sizes: true });
    if (this.isClosed) return;
    this.sizes = Object.fromEntries(runs.map((run) => [run.folder, run.undo_bytes]));
    this.total = undo_bytes;
    this.isMeasured = true;
    this.show();
  }

  close() {
    this.live?.();
    this.jobs.close();
    this.isClosed = true;
  }

  mayLeave = () => true;
  hasChanges = () => false;

  async ask() {
    const { runs } = await get("/api/runs");
    if (JSON.stringify(runs) === JSON.stringify(this.runs)) return;
    this.runs = runs;
    this.show();
    if (this.isMeasured && !runs.some((run) => run.state === "running")) await this.measure();
  }

  show() {
    const focused = document.activeElement?.closest?.("tr")?.dataset.folder;
    const shown = this.runs.filter((run) => run.state !== "undone" || this.undone.checked);
    this.rows.replaceChildren(...shown.map((run) => this.row(run)));
    const hidden = this.runs.length - shown.length;
    const held = this.total === undefined ? "" : `; undo holds ${size(this.total)}`;
    this.told.textContent = `${counted(shown.length, "run")}${hidden ? `, and ${number(hidden)} that ${hidden === 1 ? "was" : "were"} undone` : ""}${held}`;
    if (focused !== undefined) [...this.rows.children].find((row) => row.dataset.folder === focused)?.querySelector("a").focus();
  }

  row(run) {
    const bytes = this.sizes[run.folder];
    const cells = [
      h("a", { href: runAddress(run.run_key, run.folder) }, shownName(run)), run.state, run.who, when(run.started), when(run.last_commit),
      ...OUTCOMES.map((outcome) => (run.counts[outcome] ? number(run.counts[outcome]) : "")), bytes === undefined ? "" : size(bytes),
    ];
    return h("tr", { "data-folder": run.folder, "data-state": run.state }, cells.map((cell) => h("td", {}, cell)));
  }

  step(by) {
    step(this.rows.querySelectorAll("a"), by);
  }
}

/** One run: what is known of it, what it changed, what failed, and its undo. */
export class RunPage {
  constructor(app, query) {
    this.app = app;
    this.query = Object.fromEntries(["key", "folder"].filter((name) => query.has(name)).map((name) => [name, query.get(name)]));
    this.isReadOnly = app.about.is_read_only;
    this.first = 0;
    this.keys = [
      ["g", "to all samples", () => app.go("/")],
      ["n", "next samples that it changed", () => this.turn(1)],
      ["p", "previous samples that it changed", () => this.turn(-1)],
      ...(this.isReadOnly ? [] : [["u", "undo it: first what that would do, then again to do it", () => this.undoNext()]]),
    ];
    this.title = h("h1", {});
    this.facts = h("dl", { class: "facts-of-run" });
    this.counts = h("p", { class: "counts", "aria-label": "What became of samples" });
    this.undoPlace = h("div", { id: "undo" });
    this.failures = h("section", { "aria-label": "Failed samples", hidden: true });
    this.place = h("output", {});
    this.gallery = h("div", { id: "gallery" });
    this.turns = h("p", { class: "bar" }, button("Previous", "p", () => this.turn(-1)), this.place, button("Next", "n", () => this.turn(1)));
    this.changes = h("section", { "aria-label": "Before and after", hidden: true }, h("h2", {}, "Before and after"), this.turns, this.gallery);
    const undo = this.isReadOnly ? null : button("Undo this run", "u", () => this.plan(), { id: "undo-run" });
    this.element = h("section", { "aria-label": "Run" }, h("div", { class: "bar" }, this.title, undo), this.facts, this.counts, this.undoPlace, this.failures, this.changes);
  }

  async load() {
    await this.ask();
    if (this.isClosed) return;
    this.live = every(1500, () => this.ask());
    if (!this.isStanding || this.found.moved) return;
    await this.showFailures();
    await this.showChanges();
  }

  close() {
    this.live?.();
    this.isClosed = true;
  }

  mayLeave = () => true;
  hasChanges = () => false;

  get isStanding() {
    return this.found.run.state !== "undone";
  }

  async ask() {
    const found = await get("/api/runs/one", this.query);
    if (this.isClosed || JSON.stringify(found) === JSON.stringify(this.found)) return;
    const isOther = this.found && found.changed !== this.found.changed;
    this.found = found;
    this.show();
    if (isOther && this.isStanding && !found.moved) await this.showChanges();
  }

  show() {
    const { run, facts, took_back, taken_back_by, note, moved } = this.found;
    this.title.textContent = `Run ${shownName(run)}`;
    const links = (runs) => runs.map(({ run_key, folder }) => h("a", { href: runAddress(run_key, folder) }, run_key));
    const known = [
      ["state", run.state], ["who", run.who], ["started", when(run.started)], ["last commit", when(run.last_commit)],
      ...facts.map(([title, text]) => [title, title === "link" ? outside(text) : text]),
      ["took back", links(took_back)], ["taken back by", links(taken_back_by)],
      ["samples", moved ? "It moved samples to other indices, and left their items as they were." : ""], ["note", note],
    ];
    this.facts.replaceChildren(...known.filter(([, said]) => said?.length || said instanceof Node).flatMap(([title, said]) => [h("dt", {}, title), h("dd", {}, said)]));
    this.counts.replaceChildren(...OUTCOMES.filter((outcome) => run.counts[outcome]).map((outcome) => this.count(outcome)));
    const undo = this.element.querySelector("#undo-run");
    if (undo) undo.disabled = !this.isStanding;
  }

  /** How many samples had an outcome: a link to the grid with just these. */
  count(outcome) {
    const text = `${number(this.found.run.counts[outcome])} ${outcome}`;
    if (!this.found.where || outcome === "removed") return h("span", {}, text);
    const where = `${this.found.where} == '${outcome}'`;
    return h("a", { href: `/?${new URLSearchParams({ where })}` }, text);
  }

  async showFailures() {
    const shown = this.failures.querySelectorAll("li").length;
    if (!this.found.run.counts.failed && !shown) return;
    const { samples, count } = await get("/api/runs/failures", { key: this.found.run.run_key, first: shown, most: FAILURES });
    const list = this.failures.querySelector("ol") ?? h("ol", { class: "failures" });
    list.append(...samples.map(({ idx, error, attempts, traceback }) => h(
      "li", {}, h("a", { href: `/sample/${idx}` }, `Sample ${idx}`), " ", h("span", { class: "error" }, error),
      attempts > 1 ? ` (tried ${attempts} times)` : null,
      traceback ? h("details", {}, h("summary", {}, "Where"), h("pre", {}, traceback)) : null,
    )));
    const isAll = list.childElementCount >= count;
    this.failures.replaceChildren(h("h2", {}, `${counted(count, "sample")} failed`), list,
      isAll ? "" : button("Show more", null, () => this.showFailures().catch((error) => tell(error.message, true))));
    this.failures.hidden = !count;
  }

  async showChanges() {
    const { samples, count } = await get("/api/runs/changes", { key: this.found.run.run_key, first: this.first, most: CHANGES });
    if (this.isClosed) return;
    this.changedCount = count;
    this.changes.hidden = !count;
    this.place.textContent = `${number(this.first + 1)} to ${number(this.first + samples.length)} of ${counted(count, "sample")} that it changed`;
    this.turns.hidden = count <= CHANGES && this.first === 0;
    this.gallery.replaceChildren(...samples.map(({ idx, outcome, items }) => h(
      "article", { class: "item", "data-idx": String(idx), "aria-label": `Sample ${idx}` },
      h("h3", {}, h("a", { href: `/sample/${idx}` }, `Sample ${idx}`), ` ${outcome}`), changesView(idx, items),
    )));
  }

  turn(pages) {
    const first = this.first + pages * CHANGES;
    if (first < 0 || first >= (this.changedCount ?? 0)) return;
    this.first = first;
    this.showChanges().catch((error) => tell(error.message, true));
  }

  // -- its undo --

  undoNext() {
    const press = this.undoPlace.querySelector("#undo-now");
    if (!press) return this.isStanding && this.plan();
    if (!press.disabled) press.click();
  }

  /** Says what an undo would do, and does nothing of it. */
  async plan(force = false) {
    try {
      const plan = await post("/api/runs/plan-undo", { run_key: this.found.run.run_key, force });
      this.undoPlace.replaceChildren(this.planView(plan, force));
      this.undoPlace.querySelector("section").focus();
    } catch (error) {
      this.undoPlace.replaceChildren();
      tell(error.message, true);
    }
  }

  planView(plan, force) {
    const changed = Object.entries(plan.changed).map(([idx, files]) => h("li", {}, h("a", { href: `/sample/${idx}` }, `Sample ${idx}`), ` ${files.join(", ")}`));
    const more = plan.changed_count - changed.length;
    const mayForce = plan.refusal !== null || force;
    const check = h("input", { id: "force", type: "checkbox", checked: force, onchange: () => this.plan(check.checked) });
    return h(
      "section", { class: "plan", "aria-label": "What the undo would do", tabindex: "-1" },
      h("h2", {}, "What the undo would do"),
      plan.refusal && !plan.samples ? null : h("p", {}, plan.samples
        ? `${counted(plan.samples, "sample")} would be as before the run, ${counted(plan.files, "file")} put back or removed.`
        : "No file would be changed: all is as it was before the run. It would count no more."),
      plan.changed_count ? h("p", {}, `${counted(plan.changed_count, "sample")} changed since:`) : null,
      changed.length ? h("ul", {}, changed, more ? h("li", {}, `and ${number(more)} more`) : null) : null,
      plan.left.length ? h("p", {}, `Shared items that stay as they are: ${plan.left.join(", ")}.`) : null,
      plan.lost ? h("p", { class: "error" }, `${counted(plan.lost, "file")} that it replaced ${plan.lost === 1 ? "is" : "are"} not there any more.`) : null,
      plan.refusal ? h("p", { class: "error", role: "alert" }, `It would be refused. ${plan.refusal}`) : null,
      mayForce ? h("p", {}, h("label", {}, check, " All the same: also what others changed since, and while it is running. What is there now is kept, and an undo of the undo brings it back.")) : null,
      h("p", { class: "bar" }, button("Undo it now", "u", () => this.undo(force), { id: "undo-now", disabled: plan.refusal !== null }), button("Leave it", null, () => this.undoPlace.replaceChildren())),
      h("p", { class: "facts" }, `The undo is a run too, ${plan.undo_run_key}: undone in its turn, it gives the changes back.`),
    );
  }

  async undo(force) {
    const run_key = this.found.run.run_key;
    this.undoPlace.replaceChildren(h("p", { role: "status" }, "It is being undone."));
    try {
      const done = await post("/api/runs/undo", { run_key, force });
      const overwritten = done.overwritten ? `, ${number(done.overwritten)} of them changed since` : "";
      const left = done.left.length ? ` Shared items that were left as they are: ${done.left.join(", ")}.` : "";
      await this.app.go(runAddress(run_key, done.folder));
      tell(`Undone: ${counted(done.samples, "sample")} restored, ${counted(done.files, "file")} put back or removed${overwritten}.${left}`);
    } catch (error) {
      await this.plan(force);
      tell(error.message, true);
    }
  }
}

/** A link to a page that is not of this application, if it is an address of one. */
const outside = (text) => (/^https?:\/\//.test(text) ? h("a", { href: text, rel: "noreferrer" }, text) : text);

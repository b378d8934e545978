// Reviews: those that wait for a decision, and one of them, sample by sample.
import { ask, button, h, number, tell } from "./dom.js";
import { get, person, post } from "./api.js";
import { runAddress } from "./changes.js";
import { every } from "./live.js";

const FLICKER_MS = 500;
const MODES = ["flicker", "difference"];

const addressOf = (id) => `/reviews/${encodeURIComponent(id)}`;

export class Reviews {
  constructor(app) {
    this.app = app;
    this.keys = [
      ["o", "open the first review", () => this.list.querySelector("a")?.click()],
      ["g", "to all samples", () => app.go("/")],
    ];
    this.list = h("div", { id: "reviews" });
    this.element = h("section", { "aria-label": "Reviews" }, h("h1", {}, "Reviews"), this.list);
  }

  async load() {
    await this.look();
    if (!this.isClosed) this.live = every(2000, () => this.look());
  }

  close() {
    this.isClosed = true;
    this.live?.();
  }

  mayLeave = () => true;
  hasChanges = () => false;

  async look() {
    const found = await get("/api/reviews");
    const text = JSON.stringify(found);
    if (text === this.last) return;
    this.last = text;
    const head = ["review", "samples", "decided", "left", "by", "flow run", "kept until"].map((one) => h("th", { scope: "col" }, one));
    const rows = found.reviews.map((one) => h("tr", {},
      h("td", {}, h("a", { href: addressOf(one.id) }, one.id)),
      [number(one.samples), number(one.samples - one.left), number(one.left)].map((count) => h("td", { class: "number" }, count)),
      h("td", {}, one.people.join(", ")), h("td", {}, one.flow_run ? "waits" : "none"),
      h("td", {}, new Date(one.expires).toLocaleString()),
    ));
    const table = rows.length ? h("table", {}, h("tr", {}, head), rows) : h("p", {}, "No review waits for a decision.");
    this.list.replaceChildren(table, ...found.problems.map((text) => h("p", { class: "error", role: "alert" }, text)));
  }
}

export class ReviewPage {
  constructor(app, id) {
    this.app = app;
    this.id = id;
    this.mode = "";
    this.wanted = null; // the sample that is to be shown, while another one still is
    this.saidLast = ""; // the comment, as the server has it
    this.isReadOnly = app.about.is_read_only;
    this.keys = [
      ...(this.isReadOnly ? [] : [
        ["a", "approve, and go on", () => this.decide(true)],
        ["r", "reject, and go on", () => this.decide(false)],
        ["b", "take the decision back", () => this.decide(null)],
        ["A", "approve the rest", () => this.decideRest(true)],
        ["R", "reject the rest", () => this.decideRest(false)],
        ["c", "to the comment", () => this.comment.focus()],
        ["s", "apply what is decided (also Ctrl+s)", () => this.apply()],
      ]),
      ["ArrowRight j", "next sample", () => this.go("next")],
      ["ArrowLeft k", "previous sample", () => this.go("previous")],
      ["n", "next sample that is left", () => this.go("next_left")],
      ["f", "flicker between before and after, or not", () => this.choose("flicker")],
      ["d", "the difference, or not", () => this.choose("difference")],
      ["g", "to all reviews", () => app.go("/reviews")],
    ];
    this.progress = h("output", { id: "progress" });
    this.bar = h("progress", { "aria-label": "Decided", max: "1", value: "0" });
    this.place = h("h2", { id: "place" });
    this.verdict = h("strong", { id: "verdict", role: "status" });
    this.notes = h("div", { id: "notes" });
    this.flowRun = h("p", { id: "flow-run" });
    this.said = h("ul", { id: "said" });
    this.comment = h("textarea", { rows: "2", cols: "50", maxlength: "10000", "aria-keyshortcuts": "c", onchange: () => this.say() });
    this.items = h("div", { class: "items", id: "changes" });
    this.result = h("div", { id: "result", role: "status" });
    this.body = h("div", {}, this.controls(), h("p", { class: "bar" }, this.place, this.verdict), this.notes, this.items,
      this.isReadOnly ? null : h("p", {}, h("label", {}, "Comment ", this.comment)), this.said);
    this.element = h("section", { "aria-label": "Review" },
      h("h1", {}, `Review ${id}`), this.flowRun, h("p", { class: "bar" }, this.bar, this.progress), this.result, this.body);
  }

  controls() {
    const deciding = this.isReadOnly ? [] : [
      button("Approve", "a", () => this.decide(true), { id: "approve" }),
      button("Reject", "r", () => this.decide(false), { id: "reject" }),
      button("Take back", "b", () => this.decide(null), { id: "take-back" }),
    ];
    const rest = this.isReadOnly ? [] : [
      button("Approve the rest", "A", () => this.decideRest(true), { class: "rest" }),
      button("Reject the rest", "R", () => this.decideRest(false), { class: "rest" }),
      button("Apply", "s", () => this.apply(), { id: "apply" }),
    ];
    return h("div", { class: "bar" }, deciding,
      button("Previous", "k", () => this.go("previous")), button("Next", "j", () => this.go("next")),
      button("Next left", "n", () => this.go("next_left")),
      button("Flicker", "f", () => this.choose("flicker"), { id: "flicker" }),
      button("Difference", "d", () => this.choose("difference"), { id: "difference" }), rest);
  }

  async load() {
    await this.look();
    if (!this.state) return;
    this.askForFlowRun(); // Prefect may be slow, or away
    try {
      await this.show(this.state.first_left ?? this.state.first);
    } finally {
      if (!this.isClosed) {
        this.live = every(2000, () => this.look());
        this.flicker = setInterval(() => this.items.classList.toggle("after"), FLICKER_MS);
      }
    }
  }

  close() {
    this.isClosed = true;
    this.live?.();
    clearInterval(this.flicker);
  }

  /** Saves the comment; where that cannot be done, it is not lost without a question. */
  mayLeave = async () => {
    if (this.hasChanges()) await this.say();
    if (!this.hasChanges()) return true;
    return (await ask("The comment could not be saved.", [["leave", "Leave without it"], ["", "Stay"]])) === "leave";
  };
  hasChanges = () => Boolean(this.state) && this.comment.value !== this.saidLast;

  /** Sees how far the review is: others decide, too, here or in Prefect. */
  async look() {
    const { waiting, decided } = await get("/api/review", { id: this.id });
    if (this.isClosed) return;
    if (decided) return this.showDecided(decided);
    const before = this.state;
    if (waiting.left) this.isResumed = false; // a decision was taken back: its flow run asks again
    this.taken(waiting);
    if (!before) return;
    const isNews = before.approved !== waiting.approved || before.rejected !== waiting.rejected;
    if (isNews || !this.isShown) await this.show(this.wanted);
  }

  get isShown() {
    return (this.sample?.idx ?? null) === this.wanted;
  }

  taken(state) {
    this.state = state;
    const done = state.samples - state.left;
    this.bar.value = state.samples ? done / state.samples : 1;
    this.progress.textContent = `${number(state.approved)} approved, ${number(state.rejected)} rejected, ${number(state.left)} of ${number(state.samples)} left`;
    const mine = person() || "somebody";
    const others = Object.entries(state.comments).filter(([name, text]) => text && (this.isReadOnly || name !== mine));
    this.said.replaceChildren(...others.map(([name, text]) => h("li", {}, h("strong", {}, name), ": ", text)));
    if (document.activeElement !== this.comment && this.comment.value === this.saidLast) {
      this.comment.value = state.comments[mine] ?? "";
      this.saidLast = this.comment.value;
    }
    for (const one of this.element.querySelectorAll(".rest")) one.disabled = !state.left || this.isResumed;
    const apply = this.element.querySelector("#apply");
    if (apply) apply.disabled = state.left > 0 || this.isResumed;
  }

  async askForFlowRun() {
    if (!this.state.flow_run) return;
    try {
      const found = await get("/api/review/flow-run", { id: this.id });
      if (!found) return void (this.flowRun.textContent = "Its flow run is not in Prefect any more: it is applied here.");
      const link = found.address ? h("a", { href: found.address, target: "_blank", rel: "noopener" }, found.name) : found.name;
      const what = found.is_waiting ? "waits for the decision, and applies it." : found.is_over ? "has ended: what is decided is applied here." : "";
      this.flowRun.replaceChildren("Flow run ", link, ` (${found.state}) ${what}`);
    } catch (error) {
      this.flowRun.replaceChildren(h("span", { class: "error" }, error.message));
    }
  }

  async show(idx) {
    this.wanted = idx;
    if (idx === null) return this.showNone();
    const asked = (this.asked = (this.asked ?? 0) + 1);
    const sample = await get("/api/review/sample", { id: this.id, idx });
    if (asked !== this.asked || this.isClosed) return;
    const isOther = this.sample?.idx !== sample.idx || this.sample?.version !== sample.version;
    this.sample = sample;
    this.place.replaceChildren("Sample ", h("a", { href: `/sample/${sample.idx}` }, String(sample.idx)),
      `, ${number(sample.position)} of ${number(this.state.samples)}`, sample.is_removed ? ", is to be removed" : "");
    this.verdict.textContent = sample.approved === null ? "" : `${sample.approved ? "Approved" : "Rejected"} by ${sample.by}`;
    this.verdict.className = sample.approved === null ? "" : sample.approved ? "approved" : "rejected";
    const since = sample.changed_since.length
      ? h("p", { class: "error", role: "alert" }, `Changed by others since the change was computed: ${sample.changed_since.join(", ")}. The sample may be left as it is.`)
      : null;
    this.notes.replaceChildren(...[since, this.failures()].filter(Boolean));
    if (isOther) {
      this.items.replaceChildren(...sample.items.map((item) => this.itemView(item)));
      this.loadAhead(sample.next_left);
    }
  }

  showNone() {
    this.place.textContent = "No sample would change.";
    this.notes.replaceChildren(...[this.failures()].filter(Boolean));
  }

  failures() {
    const { failed, failures } = this.state;
    if (!failures) return null;
    const lines = failed.map(([idx, reason]) => h("li", {}, h("a", { href: `/sample/${idx}` }, String(idx)), `: ${reason}`));
    return h("details", {}, h("summary", {}, `${number(failures)} samples could not be changed`), h("ul", {}, lines));
  }

  itemView(item) {
    const words = h("ul", { class: "words" }, item.words.map((text) => h("li", {}, text)));
    return h("article", { class: "item change", "data-key": item.key, "aria-label": item.key },
      h("h3", {}, item.key), item.problem ? h("p", { class: "error" }, item.problem) : null, words,
      item.has_picture ? h("div", { class: "compared" }, ["before", "after", "difference"].map((which) => this.picture(item, which))) : null);
  }

  picture(item, which) {
    const figure = h("figure", { class: which }, h("figcaption", {}, which));
    const image = h("img", { src: this.pictureOf(this.sample, item.key, which), alt: `${item.key} ${which}`, loading: which === "difference" ? "lazy" : null });
    image.addEventListener("error", () => image.replaceWith(h("span", { class: "none" }, `no picture of ${which === "difference" ? "the difference" : which}`)));
    figure.append(image);
    return figure;
  }

  pictureOf = (sample, key, which) =>
    `/review-picture?${new URLSearchParams({ id: this.id, idx: sample.idx, key, which, version: sample.version })}`;

  /** Has the pictures of the sample that follows in the browser's cache. */
  async loadAhead(idx) {
    if (idx === null) return;
    const sample = await get("/api/review/sample", { id: this.id, idx }).catch(() => null); // is asked for again when shown
    for (const item of sample?.items ?? []) {
      if (item.has_picture) for (const which of ["before", "after"]) new Image().src = this.pictureOf(sample, item.key, which);
    }
  }

  choose(mode) {
    this.mode = this.mode === mode ? "" : mode;
    for (const one of MODES) {
      this.items.classList.toggle(one, this.mode === one);
      this.element.querySelector(`#${one}`).setAttribute("aria-pressed", String(this.mode === one));
    }
  }

  go(where) {
    const idx = this.sample?.[where] ?? null;
    if (idx !== null) return this.show(idx).catch((error) => tell(error.message, true));
    tell(where === "next_left" ? "No other sample is left." : `There is no ${where} sample.`);
  }

  /** Does something that changes the review; when it was decided elsewhere meanwhile, shows that. */
  async try(act) {
    try {
      tell("");
      return await act();
    } catch (error) {
      tell(error.message, true);
      if (error.kind !== "ReviewNotFoundError" && error.kind !== "ConflictError") return null;
      await this.look().catch((other) => tell(other.message, true));
      if (this.state) await this.show(this.wanted).catch(() => null); // said above
      return null;
    }
  }

  /** Decides about the sample that is shown; not while another is on its way, which may be meant. */
  decide(isApproved) {
    const { sample } = this;
    if (!sample || !this.isShown || this.isResumed || this.isDeciding) return null;
    this.isDeciding = true;
    const asked = post("/api/review/decide", { id: this.id, idx: sample.idx, is_approved: isApproved, seen: sample.approved });
    return this.try(async () => {
      const state = await asked.finally(() => (this.isDeciding = false));
      if (this.isClosed) return;
      this.taken(state);
      const isOn = isApproved !== null && sample.approved === null && state.left > 0;
      if (this.wanted === sample.idx) await this.show(isOn ? (sample.next_left ?? sample.idx) : sample.idx);
      if (!state.left && !this.isClosed) tell("All is decided. Apply it (s), or go back to look again.");
    });
  }

  async decideRest(isApproved) {
    const { left } = this.state ?? {};
    if (!left || this.isResumed) return;
    const [word, title] = isApproved ? ["Approve", "approve"] : ["Reject", "reject"];
    const choice = await ask(`${word} the ${number(left)} that are left, without looking at them?`, [[title, word], ["", "Cancel"]]);
    if (choice !== title) return;
    await this.try(async () => {
      this.taken(await post("/api/review/decide-rest", { id: this.id, is_approved: isApproved }));
      await this.show(this.wanted);
      tell("All is decided. Apply it (s), or go back to look again.");
    });
  }

  say() {
    if (!this.state) return null;
    const comment = this.comment.value;
    return this.try(async () => {
      const state = await post("/api/review/comment", { id: this.id, comment });
      this.saidLast = comment;
      this.taken(state);
    });
  }

  apply() {
    if (!this.state || this.isResumed) return null;
    if (this.state.left) return tell(`${number(this.state.left)} are left to decide about.`, true);
    return this.try(async () => {
      if (this.hasChanges()) await this.say();
      if (this.hasChanges()) return null; // it could not be saved, as was told
      const done = await post("/api/review/apply", { id: this.id });
      if (done.how === "applied") return this.showDecided(done.decided, done.note || "Applied here, at once.");
      this.isResumed = true;
      this.taken(this.state);
      tell(`The flow run ${done.flow_run.name} was resumed with the decision, and applies it. This page shows when it has.`);
      return this.askForFlowRun();
    });
  }

  showDecided(done, note = this.isResumed ? "Applied by its flow run." : "It was decided elsewhere.") {
    this.close(); // nothing more is asked, nor shown of what was
    this.state = this.sample = null;
    this.body.replaceChildren();
    this.bar.value = 1;
    this.progress.textContent = "";
    const run = h("a", { href: runAddress(done.run_key) }, "Its run");
    const conflicts = done.conflicts.slice(0, 100).map((idx) => [h("a", { href: `/sample/${idx}` }, String(idx)), " "]);
    this.result.replaceChildren(
      h("p", {}, h("strong", {}, `${number(done.applied)} applied, ${number(done.discarded)} discarded. `), note),
      h("p", {}, `Decided by ${done.reviewed_by}: ${done.decision}. ${done.comment}`),
      done.conflicts.length ? h("p", {}, `${number(done.conflicts.length)} changed by others meanwhile, and left as they are: `, conflicts.flat()) : "",
      h("p", {}, run, ", by which it can be undone · ", h("a", { href: "/reviews" }, "Reviews")),
    );
    tell("");
  }
}

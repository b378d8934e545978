// The past of a sample: what was done to it, by whom, and to put it back.
import { ask, button, h, tell } from "./dom.js";
import { get, post } from "./api.js";
import { changesView, runAddress, when } from "./changes.js";

const MOST = 10;

export class History {
  /** `page` is the sample's page: it has `idx`, `isReadOnly`, `isClosed`, `version()`, `afterAsking(act)`, `readAgain()`, `did(undo)`, `forget(undo)`. */
  constructor(page) {
    this.page = page;
    this.isOpen = false;
    this.events = h("ol", { class: "events", "aria-label": "What was done, the newest first" });
    this.count = h("p", { class: "facts", role: "status" });
    this.more = button("Show earlier", null, () => this.load(this.events.childElementCount));
    this.element = h("section", { id: "history", "aria-label": "History", hidden: true, tabindex: "-1" }, h("h2", {}, "History"), this.count, this.events, this.more);
  }

  /** Opens it, or closes it. */
  async toggle() {
    this.isOpen = !this.isOpen;
    this.element.hidden = !this.isOpen;
    if (!this.isOpen) return;
    await this.load();
    this.element.scrollIntoView();
    this.element.focus({ preventScroll: true });
  }

  /** Asks anew for what is shown, where it is; with `first`, for earlier events, too. */
  async load(first = 0) {
    if (!this.isOpen) return;
    const asked = (this.asked = (this.asked ?? 0) + 1);
    try {
      const found = await get(`/api/samples/${this.page.idx}/history`, { first, most: MOST });
      if (asked !== this.asked || this.page.isClosed) return;
      const told = JSON.stringify(found);
      if (!first && told === this.told) return; // what is in focus stays
      if (!first) this.told = told;
      const shown = found.events.map((event) => this.event(event));
      if (first) this.events.append(...shown);
      else this.events.replaceChildren(...shown);
      this.more.hidden = this.events.childElementCount >= found.count;
      this.count.textContent = found.count ? `${found.count} ${found.count === 1 ? "change" : "changes"} known.` : "No run is known that did anything to this sample.";
    } catch (error) {
      if (!this.page.isClosed) tell(error.message, true);
    }
  }

  event(event) {
    const about = [event.told, event.who, event.counts ? null : "taken back, counts no more"].filter(Boolean).join(" · ");
    return h(
      "li", { class: event.counts ? "event" : "event gone", "data-commit": event.commit_id },
      h("p", {}, h("time", { datetime: event.at }, when(event.at)), " ", h("a", { href: runAddress(event.run_key, event.folder) }, event.run_key)),
      h("p", { class: "facts" }, about),
      event.failure ? h("p", { class: "error" }, event.failure) : null,
      changesView(this.page.idx, event.items),
      this.page.isReadOnly ? null : this.actions(event),
    );
  }

  actions(event) {
    const many = event.samples > 1 ? ` of ${event.samples} samples` : "";
    const undo = event.undo ? button(event.undo === "commit" ? `Undo this save${many}` : "Undo this restore", null, () => this.undo(event)) : null;
    const restore = event.items.length ? button("Restore what it was before", null, () => this.restore(event)) : null;
    return undo || restore ? h("p", { class: "bar" }, undo, restore) : null;
  }

  undo = (event) => this.page.afterAsking(() => this.takeBack(event));
  restore = (event) => this.page.afterAsking(() => this.putBack(event));

  // What follows is done in the page's turn.

  async takeBack(event) {
    if (event.isTakenBack) return; // it was asked for twice
    const what = { run_key: event.run_key, commit_id: event.undo === "commit" ? event.commit_id : null };
    try {
      await undoOf(what);
      event.isTakenBack = true;
      this.page.forget(what);
      await this.page.readAgain();
      tell(event.undo === "commit" ? "The save was taken back." : "The restore was taken back.");
    } catch (error) {
      tell(error.message, true);
    }
  }

  async putBack(event, force = false) {
    const { idx } = this.page;
    const { run_key, commit_id } = event;
    try {
      const done = await post(`/api/samples/${idx}/restore`, { run_key, commit_id, version: this.page.version(), force });
      if (done.run_key) this.page.did({ run_key: done.run_key, commit_id: null });
      await this.page.readAgain();
      tell(done.run_key ? `Restored: ${done.files} ${done.files === 1 ? "file" : "files"}. Undo takes it back.` : "Nothing was to be restored: it is as it was before.");
    } catch (error) {
      if (error.kind === "UndoRefusedError" && !force) return void (await this.refused(event, error.message));
      tell(error.message, true);
      if (error.kind === "ConflictError") await this.page.readAgain().catch((other) => tell(other.message, true));
    }
  }

  async refused(event, reason) {
    const choice = await ask("The restore is refused", [["force", "Restore all the same"], ["", "Leave it"]],
      h("p", { class: "error" }, reason),
      h("p", {}, "What is there now would be kept: an undo of the restore brings it back."));
    if (choice === "force") await this.putBack(event, true);
    else tell(reason, true);
  }
}

/** Takes back a commit of a run, or, without one, all of it. */
export const undoOf = (what) =>
  what.commit_id ? post("/api/undo", what) : post("/api/runs/undo", { run_key: what.run_key });

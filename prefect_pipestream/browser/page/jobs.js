// Changes to many that the server makes: whoever asked for one, and wherever, sees how far it is.
import { button, h, number, tell } from "./dom.js";
import { get, post } from "./api.js";
import { runAddress } from "./changes.js";
import { every } from "./live.js";

export class Jobs {
  /** `onEnd` is called with one of them that has ended. */
  constructor(app, onEnd = () => {}) {
    Object.assign(this, { isReadOnly: app.about.is_read_only, onEnd });
    this.views = new Map(); // by the names of the jobs
    this.element = h("div", { id: "progress", role: "status" });
  }

  get isRunning() {
    return [...this.views.values()].some(({ job }) => job.state === "running");
  }

  /** Shows those that go on, now and from now on. */
  load() {
    this.live = every(1000, () => this.look());
    return this.look();
  }

  close() {
    this.isClosed = true;
    this.live?.();
  }

  async look() {
    const running = await get("/api/jobs");
    const ended = [...this.views.values()].filter(({ job }) => job.state === "running" && !running.some((one) => one.job === job.job));
    for (const job of [...running, ...await Promise.all(ended.map(({ job }) => this.end(job)))]) this.show(job);
  }

  /** Stops the first of them that goes on. */
  stop() {
    [...this.views.values()].find(({ job }) => job.state === "running")?.stop.click();
  }

  /** What became of one that does not go on. */
  async end(job) {
    try {
      return await get(`/api/jobs/${job.job}`);
    } catch (error) {
      if (error.kind !== "RunNotFoundError") throw error;
      return { ...job, state: "stopped", problem: error.message }; // with its server, which ended
    }
  }

  show(job) {
    const view = this.views.get(job.job) ?? this.add(job);
    if (this.isClosed || view.job.state !== "running") return; // it is an answer that came late
    view.show(job);
    if (job.state !== "running") this.onEnd(job);
  }

  add(job) {
    const view = new JobView(job, this.isReadOnly);
    this.views.set(job.job, view);
    this.element.append(view.element);
    return view;
  }
}

/** One of them, whose elements stay as it goes on: so does the focus. */
class JobView {
  constructor(job, isReadOnly) {
    this.job = { ...job, state: "running" };
    this.bar = h("progress", { "aria-label": `Progress of ${job.run_key}` });
    this.told = h("span");
    this.problem = h("span", { class: "error" });
    this.stop = isReadOnly ? "" : button("Stop", "S", () => post(`/api/jobs/${job.job}/stop`, {}).catch((error) => tell(error.message, true)));
    this.hide = button("Hide", null, () => this.element.remove(), { hidden: true });
    this.failed = h("ul");
    const run = h("a", { href: runAddress(job.run_key), title: "The run, and its undo" }, job.run_key);
    this.element = h("section", { class: "job", "aria-label": job.run_key }, h("p", {}, run), h("p", {}, this.bar, this.told, " ", this.stop, this.hide), this.problem, this.failed);
  }

  show(job) {
    this.job = job;
    const counts = Object.entries(job.counts).filter(([, n]) => n).map(([outcome, n]) => `${number(n)} ${outcome}`);
    this.bar.max = job.of || 1;
    this.bar.value = job.done;
    this.told.textContent = ` ${number(job.done)} of ${number(job.of)}: ${job.state}. ${counts.join(", ")}`;
    this.problem.textContent = job.problem ?? "";
    const more = job.failed.slice(this.failed.childElementCount);
    this.failed.append(...more.map(({ idx, reason }) => h("li", {}, h("a", { href: `/sample/${idx}` }, `Sample ${idx}`), `: ${reason}`)));
    if (job.state === "running") return;
    this.hide.hidden = false;
    if (document.activeElement === this.stop) this.hide.focus();
    if (this.stop) this.stop.remove();
  }
}

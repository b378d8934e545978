// One change to many samples: what would become of some is shown, then it is one run.
import { button, h, number, tell } from "./dom.js";
import { get, post } from "./api.js";
import { parsed, stageForm } from "./forms.js";
import { itemView } from "./items.js";

export class Many {
  /** `scope()` gives the ranges and the number of the samples that are meant, and their name, or why none are; `jobs` shows what is begun. */
  constructor(app, scope, images, jobs) {
    Object.assign(this, { app, scope, images, jobs });
    this.what = h("select", { "aria-label": "What to do" }, [
      h("option", { value: "set" }, "set a metadata value"),
      h("option", { value: "stage" }, "apply a stage"),
      h("option", { value: "remove" }, "remove from the dataset"),
    ]);
    this.what.addEventListener("change", () => this.choose());
    this.form = h("div", { oninput: () => this.forget() });
    this.shown = h("div", { id: "preview" });
    this.element = h("section", { id: "many", "aria-label": "Change many" },
      h("h2", {}, "Change many"), h("p", {}, this.what), this.form,
      h("p", {}, button("Preview", null, () => this.preview()), button("Close", null, () => this.element.remove())), this.shown);
    this.choose();
  }

  /** Takes a preview away, as what it shows is not what is meant any more. */
  forget() {
    if (!this.asked) return;
    this.asked = null;
    this.shown.replaceChildren();
  }

  choose() {
    this.forget();
    if (this.what.value === "set") this.chooseValue();
    else if (this.what.value === "stage") this.chooseStage();
    else {
      this.form.replaceChildren(h("p", {}, "All their own files go, and come back when the run is undone. The other samples keep their indices."));
      this.read = () => ({ removes: true });
    }
  }

  chooseValue() {
    const path = h("input", { placeholder: "metadata.label", "aria-label": "Where, as a path" });
    const value = h("input", { placeholder: "3, true, \"text\" or text", "aria-label": "Value" });
    this.form.replaceChildren(h("p", { class: "field" }, path, " = ", value));
    this.read = () => ({ edits: [{ do: "set-value", path: path.value, value: parsed(value.value) }] });
  }

  async chooseStage() {
    this.form.replaceChildren();
    this.read = () => ({ edits: [] }); // which is refused, until it is known which there are
    const stages = await this.app.stages().catch((error) => tell(error.message, true));
    if (!stages || this.what.value !== "stage") return;
    const select = h("select", { "aria-label": "Stage" }, Object.keys(stages).map((name) => h("option", { value: name }, name)));
    const place = h("div");
    let form;
    const choose = () => {
      form = stageForm(stages[select.value], this.images());
      place.replaceChildren(form.element);
    };
    select.addEventListener("change", choose);
    choose();
    this.form.replaceChildren(h("label", {}, "Stage ", select), place);
    this.read = () => ({ edits: [{ do: "stage", name: select.value, arguments: form.read() }] });
  }

  /** Buttons for flow runs, where Prefect has a deployment that can do it. */
  async byFlowRun(asked, where) {
    if (asked.removes) return [];
    const deployments = await get("/api/many/deployments").catch((error) => {
      tell(error.message, true);
      return [];
    });
    return deployments.map(({ id, name }) =>
      button(`As a flow run of ${name}`, null, () => this.startFlowRun({ ...asked, where, deployment: id })));
  }

  startFlowRun(asked) {
    return this.begin(async () => {
      const run = await post("/api/many/flow-run", asked);
      const link = run.address ? h("a", { href: run.address, target: "_blank", rel: "noopener" }, run.name) : run.name;
      return ["Asked for as a flow run: ", link, ". What it writes shows here as it goes."];
    });
  }

  start(asked) {
    return this.begin(async () => {
      this.jobs.show(await post("/api/many", asked));
      return ["Begun: its progress is below."];
    });
  }

  /** Begins what was previewed, once. The preview stays: the second click of a double one would meet whatever took its place. */
  async begin(ask) {
    const { choices } = this;
    this.asked = null;
    tell("");
    choices.replaceChildren("Asking…");
    try {
      choices.replaceChildren(...await ask());
    } catch (error) {
      tell(error.message, true);
      choices.replaceChildren("Not begun: preview it again.");
    }
  }

  async preview() {
    if (this.jobs.isRunning) return void tell("A change is being made: wait for it, or stop it.", true);
    this.forget();
    tell("");
    const { ranges, count, name, where, refusal } = this.scope();
    if (refusal) return void tell(refusal, true);
    const asked = (this.asked = { ranges, ...this.read() });
    try {
      const [some, flowRuns] = await Promise.all([post("/api/many/preview", asked), this.byFlowRun(asked, where)]);
      if (asked !== this.asked) return; // something else is meant by now
      this.choices = h("p", {}, button(`Do it with ${name}`, null, () => this.start(asked), { id: "start" }), ...flowRuns);
      this.shown.replaceChildren(
        h("p", {}, `What would become of ${some.length === count ? "them" : `the first ${some.length}`}:`),
        ...some.map((one) => pair(one)),
        this.choices,
      );
    } catch (error) {
      if (asked === this.asked) tell(error.message, true);
    }
  }
}

/** What changes in a sample: the items that differ, before and after. */
function pair({ before, after, differences, failure }) {
  const title = h("h3", {}, `Sample ${before.idx}`);
  if (failure) return h("article", { class: "pair" }, title, h("p", { class: "error" }, failure));
  if (after === null) return h("article", { class: "pair" }, title, h("p", {}, "would be removed"));
  const changed = after.items.filter((item) => item.is_changed);
  if (!changed.length) return h("article", { class: "pair" }, title, h("p", {}, "stays as it is"));
  const views = changed.map((item) => {
    const words = h("ul", {}, (differences[item.key] ?? []).map((line) => h("li", {}, line)));
    if (!item.picture) return h("div", {}, h("h4", {}, item.key), words);
    const old = before.items.find(({ key }) => key === item.key);
    const both = h("div", { class: "both" }, old ? itemView(old) : h("p", {}, "none"), itemView({ ...item, is_changed: false }));
    return h("div", {}, both, words);
  });
  return h("article", { class: "pair" }, title, views);
}

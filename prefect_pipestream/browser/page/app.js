// Which page is shown, the keys that each has, and what is asked before one is left.
import { ask, h, tell } from "./dom.js";
import { get, person } from "./api.js";
import { Grid } from "./grid.js";
import { ReviewPage, Reviews } from "./reviews.js";
import { RunPage, Runs } from "./runs.js";
import { SamplePage } from "./sample.js";

const main = document.getElementById("main");
let page = null;

export const app = {
  about: null,
  list: null, // the samples that the grid shows, for "next" and "previous"
  go,
};

/** Goes to an address of this application, unless unsaved changes keep the person here. */
async function go(address, { isBack = false } = {}) {
  if (page && !(await page.mayLeave())) {
    if (isBack) history.forward();
    return;
  }
  if (!isBack) history.pushState(null, "", address);
  await show();
}

// The pages, by their paths; those of the server (`app.py`) are the same.
const PAGES = [
  [/^\/sample\/(\d+)$/, (idx) => new SamplePage(app, Number(idx))],
  [/^\/reviews$/, () => new Reviews(app)],
  [/^\/reviews\/(.+)$/, (id) => new ReviewPage(app, id)],
  [/^\/runs$/, () => new Runs(app)],
  [/^\/run$/, () => new RunPage(app, query())],
  [/^\/$/, () => new Grid(app, query())],
];

const query = () => new URLSearchParams(location.search);

// Keys that each page has.
const EVERYWHERE = [["L", "to the runs", () => go("/runs")]];

function pageOf(path) {
  for (const [pattern, make] of PAGES) {
    const found = path.match(pattern);
    if (found) return make(...found.slice(1).map(decodeURIComponent));
  }
  return new Grid(app, query());
}

async function show() {
  page?.close();
  tell("");
  page = pageOf(location.pathname);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === location.pathname) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren(page.element);
  main.focus({ preventScroll: true });
  try {
    await page.load();
  } catch (error) {
    tell(error.message, true);
  }
}

const isTyping = (target) => target.matches("input:not([type=checkbox]), textarea, select");

function onKey(event) {
  if (document.querySelector("dialog[open]") || event.altKey || event.metaKey) return;
  if (event.ctrlKey && event.key !== "s") return;
  if (isTyping(event.target) && !(event.ctrlKey && event.key === "s")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "?") return void showKeys();
  const found = [...(page?.keys ?? []), ...EVERYWHERE].find(([keys]) => keys.split(" ").includes(event.key));
  if (found) {
    event.preventDefault();
    found[2]();
  }
}

async function showKeys() {
  const rows = [["?", "this list"], ["Escape", "leave a field, or a dialog"], ...EVERYWHERE, ...page.keys];
  const table = rows.map(([keys, what]) => h("tr", {}, h("td", {}, h("kbd", {}, keys)), h("td", {}, what)));
  await ask("Keys", [["", "Close"]], h("table", {}, table));
}

document.addEventListener("keydown", onKey);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
window.addEventListener("popstate", () => go(location.href, { isBack: true }));
window.addEventListener("beforeunload", (event) => {
  if (page?.hasChanges()) event.preventDefault();
});

const field = document.getElementById("person");
field.value = person();
field.addEventListener("input", () => localStorage.setItem("person", field.value.trim()));
document.getElementById("help").addEventListener("click", showKeys);

try {
  app.about = await get("/api/dataset");
  document.getElementById("home").textContent = app.about.name;
  document.getElementById("read-only").hidden = !app.about.is_read_only;
  document.title = `${app.about.name} · pipestream`;
  await show();
} catch (error) {
  tell(error.message, true);
}

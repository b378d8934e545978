// Which page is shown, the keys that each has, and what is asked before one is left.
import { ask, h, tell } from "./dom.js";
import { get, person } from "./api.js";
import { Grid } from "./grid.js";
import { ReviewPage, Reviews } from "./reviews.js";
import { RunPage, Runs } from "./runs.js";
import { SamplePage } from "./sample.js";

const main = document.getElementById("main");
let page = null;

// Entries of the window's history have numbers, by which a page that is kept puts its address back.
let at = history.state?.at ?? 0; // that of the page that is shown
let shown = ""; // its address
let isAsking = false; // whether the page may be left
let isPuttingBack = false; // the next `popstate` comes of that

export const app = {
  about: null,
  known: null, // stages, once they were asked for
  list: null, // the samples that the grid shows, for "next" and "previous"
  go,
  /** The stages that can be applied: by name, a schema of the arguments of each. */
  stages: async () => (app.known ??= await get("/api/stages")),
};

/** Goes to an address of this application, unless unsaved changes keep the person here. */
async function go(address) {
  if (isAsking) return; // the answer to what is asked decides
  if (!(await mayLeave())) return putBack();
  at += 1;
  history.pushState({ at }, "", address);
  await show();
}

/** The person went back, or forward: the address is another one already. */
async function onPopState() {
  if (isPuttingBack) return void (isPuttingBack = false);
  if (isAsking) return;
  if (!(await mayLeave())) return putBack();
  at = history.state?.at ?? 0;
  await show();
}

async function mayLeave() {
  isAsking = true;
  try {
    return !page || (await page.mayLeave());
  } finally {
    isAsking = false;
  }
}

/** Has the address of the page that is kept again, wherever the person went to meanwhile. */
function putBack() {
  const there = history.state?.at;
  if (there === at) return;
  if (there === undefined) return history.pushState({ at }, "", shown); // an entry without a number
  isPuttingBack = true;
  history.go(at - there);
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
    if (found) return made(make, found.slice(1));
  }
  return new Grid(app, query());
}

function made(make, parts) {
  try {
    return make(...parts.map(decodeURIComponent));
  } catch (error) {
    if (error instanceof URIError) return new NoPage();
    throw error;
  }
}

/** What an address leads to that cannot be read: one that was cut off, as in a message. */
class NoPage {
  keys = [["g", "to all samples", () => go("/")]];
  element = h("section", { "aria-label": "No page" }, h("h1", {}, "There is no such page"),
    h("p", {}, "The address cannot be read: a part of it may be missing. ", h("a", { href: "/" }, "To all samples")));

  load() {}
  close() {}
  mayLeave = () => true;
  hasChanges = () => false;
}

async function show() {
  page?.close();
  tell("");
  const mine = (page = pageOf(location.pathname));
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === location.pathname) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren(page.element);
  main.focus({ preventScroll: true });
  try {
    const loaded = mine.load();
    history.replaceState({ at }, ""); // also where the page has changed its address
    shown = location.href;
    await loaded;
  } catch (error) {
    if (mine === page) tell(error.message, true);
  }
  if (mine !== page) mine.close(); // it was left meanwhile: what it began as it was loaded ends
}

// Keys that do what they do again as long as they are held.
const REPEATED = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "j", "k"];

const isTyping = (target) => target.matches("input:not([type=checkbox]), textarea, select");

function onKey(event) {
  if (document.querySelector("dialog[open]") || event.altKey || event.metaKey) return;
  if (event.ctrlKey && event.key !== "s") return;
  if (isTyping(event.target) && !(event.ctrlKey && event.key === "s")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "?") return void (event.repeat || showKeys());
  const found = [...(page?.keys ?? []), ...EVERYWHERE].find(([keys]) => keys.split(" ").includes(event.key));
  if (!found) return;
  event.preventDefault();
  if (!event.repeat || REPEATED.includes(event.key)) found[2]();
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
window.addEventListener("popstate", onPopState);
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

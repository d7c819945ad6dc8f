// The page: what is asked, what was found, one item at a time, the map.
import { el, fetched, get } from "./dom.js";
import { fileOf, large, pictureOf, thumbnail } from "./media.js";
import { mark, showMap } from "./map.js";
import { match, moment, title } from "./words.js";

const PAGE = 24;
const OPERATORS = { is: "=", "is not": "!=", "at least": ">=", "at most": "<=" };

let library = null;
let parts = []; // files and items that are asked with: { file } or { item }
let asked = null; // the last question, for the next page
let offset = 0;
let asking = new AbortController();
let stopMedia = () => {};
let opened = 0; // how many items: what loads slowly does not land in the dialog of another

const tell = (problem) => { get("problem").textContent = problem; };

/* What is asked */

function question() {
  const form = new FormData();
  const words = get("words").value.trim(), minus = get("minus").value.trim();
  if (words) form.append("words", words);
  if (minus) form.append("minus", minus);
  for (const { file, item } of parts) {
    if (item) form.append("like", item.id);
    else form.append("file", file, "upload"); // its name stays here
  }
  const kinds = new Set(parts.filter(({ file }) => file).map(({ file }) => modalityOf(file)));
  const [kind] = kinds;
  if (kinds.size === 1 && kind) form.append("query_modality", kind); // of all files
  const chosen = boxes();
  if (chosen.some((box) => !box.checked)) {
    for (const box of chosen) if (box.checked) form.append("modality", box.value);
  }
  const column = get("column").value, value = get("value").value.trim();
  if (column && value) form.append("where", condition(column, OPERATORS[get("operator").value], value));
  if (get("segments").checked) form.append("segments", "true");
  return form;
}

const boxes = () => [...get("modalities").querySelectorAll("input")];

function condition(column, operator, value) {
  const isNumber = library.columns[column] === "number" && value !== "" && !Number.isNaN(Number(value));
  const isTruth = library.columns[column] === "boolean";
  return `"${column.replaceAll('"', '""')}" ${operator} ${isNumber || isTruth ? value : `'${value.replaceAll("'", "''")}'`}`;
}

/** The only modality with the suffix of a file, for formats that do not tell themselves. */
function modalityOf(file) {
  const suffix = `.${file.name.split(".").pop().toLowerCase()}`;
  const owners = Object.entries(library.modalities).filter(([, { suffixes }]) => suffixes.includes(suffix));
  return owners.length === 1 ? owners[0][0] : null;
}

const isEmpty = (form) => !["words", "file", "like"].some((key) => form.has(key));

async function ask(form = question(), from = 0) {
  asking.abort();
  asking = new AbortController();
  get("status").textContent = "";
  tell("");
  if (isEmpty(form)) return;
  if (boxes().length && !boxes().some((box) => box.checked)) return tell("Choose one kind at least.");
  if (parts.some(({ file }) => file?.size > library.max_upload_bytes)) {
    return tell(`Files of at most ${Math.floor(library.max_upload_bytes / 2 ** 20)} MB can be asked with.`);
  }
  asked = form;
  form.set("k", PAGE);
  form.set("offset", from);
  get("status").textContent = "Searching…";
  try {
    const answer = await fetched("search", { method: "POST", body: form, signal: asking.signal });
    show(await answer.json(), from);
  } catch (error) {
    if (error.name === "AbortError") return;
    get("status").textContent = "";
    tell(error.message);
  }
}

function showParts() {
  get("parts").replaceChildren(...parts.map((part, place) => {
    const name = part.item ? title(part.item) : part.file.name;
    const remove = el("button", {
      type: "button", "aria-label": `Ask without ${name}`,
      onclick: () => {
        parts = parts.filter((other) => other !== part);
        showParts();
        const left = get("parts").querySelectorAll("button");
        (left[Math.min(place, left.length - 1)] ?? get("words")).focus();
        ask();
      },
    }, "×");
    const face = part.file?.type.startsWith("image/") ? [pictureOf(part.file, "")] : [];
    return el("li", {}, ...face, part.item ? `like “${name}”` : name, remove);
  }));
}

function askWith(part, alone) {
  parts = alone ? [part] : [...parts, part];
  if (alone) for (const id of ["words", "minus"]) get(id).value = "";
  showParts();
  view("search");
  ask();
}

/* What was found */

function show({ hits, more }, from) {
  const list = get("results");
  if (!from) list.replaceChildren();
  const cards = hits.map(card);
  list.append(...cards);
  offset = from + hits.length;
  get("more").hidden = !more;
  const number = list.children.length;
  get("status").textContent = number
    ? `${number} result${number === 1 ? "" : "s"}${more ? ", and there are more" : ""}, best first`
    : "Nothing in this library passes the filter.";
  if (from) cards[0]?.querySelector("button, audio, video")?.focus();
  mark([...list.querySelectorAll("[data-id]")].map((found) => found.dataset.id));
}

function card(item) {
  const seconds = moment(item);
  const scores = `match ${Math.round(100 * item.score)} %, cosine ${item.cosine.toFixed(2)}`;
  const text = el("div", { className: "text" },
    el("h2", {}, title(item)),
    el("span", { className: "quiet" }, [item.modality, seconds].filter(Boolean).join(" · ")),
    el("div", { className: "bottom" },
      el("span", { className: "quiet", title: scores },
        el("meter", { min: 0, max: 1, value: item.score, "aria-label": scores }), ` ${match(item.score)}`),
      el("button", { type: "button", onclick: () => askWith({ item }, true), "aria-label": `More like ${title(item)}` }, "More like this")));
  const article = el("article", { className: "card" }, ...thumbnail(item, () => open(item)), text);
  article.dataset.id = item.id;
  article.dataset.modality = item.modality;
  if (article.querySelector("video")) text.querySelector("h2").replaceChildren(el("button", { type: "button", onclick: () => open(item) }, title(item)));
  return el("li", {}, article);
}

/* One item */

async function open(item) {
  const ticket = ++opened;
  stopMedia();
  stopMedia = () => {};
  get("item-title").textContent = title(item);
  const found = "score" in item
    ? [["Match", `${Math.round(100 * item.score)} % (${match(item.score)})`], ["Cosine", item.cosine.toFixed(3)]]
    : [];
  const rows = [...found, ["Modality", item.modality], ["Moment", moment(item)], ["File", item.name],
    ...Object.entries(item.metadata).filter(([name]) => name !== "modality")];
  get("item-about").replaceChildren(...rows.flatMap(([name, value]) =>
    value === "" || value === null ? [] : [el("dt", {}, name), el("dd", {}, [value].flat().join(" · "))]));
  get("item-file").href = fileOf(item);
  get("item-similar").onclick = () => { get("item").close(); askWith({ item }, true); };
  get("item-add").onclick = () => { get("item").close(); askWith({ item }, false); };
  get("item-media").replaceChildren();
  if (!get("item").open) get("item").showModal();
  try {
    const { media, stop } = await large(item);
    if (ticket !== opened) return stop();
    stopMedia = stop;
    get("item-media").replaceChildren(media);
  } catch (error) {
    if (ticket === opened) get("item-media").replaceChildren(el("p", {}, error.message));
  }
}

async function openById(id) {
  try {
    await open(await (await fetched(`items/${id}`)).json());
  } catch (error) {
    tell(error.message);
  }
}

get("item").addEventListener("close", () => {
  opened++;
  stopMedia();
  stopMedia = () => {};
  get("item-media").replaceChildren();
});

/* The rest of the page */

function view(name) {
  tell("");
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === name));
  }
  get("search").hidden = name !== "search";
  get("map").hidden = name !== "map";
  if (name === "map") showMap(openById);
}

function fill() {
  document.title = `${library.name} · OmniAlign`;
  get("library").textContent = library.name;
  const held = Object.entries(library.modalities).filter(([, { rows }]) => rows);
  get("modalities").append(...held.map(([name, { rows }]) =>
    el("label", {}, el("input", { type: "checkbox", checked: true, value: name, onchange: () => ask() }), `${name} (${rows})`)));
  get("column").append(el("option", { value: "" }, "anything"),
    ...Object.keys(library.columns).map((name) => el("option", { value: name }, name)));
  get("operator").append(...Object.keys(OPERATORS).map((name) => el("option", { value: name }, name)));
  get("status").textContent = `${library.rows} entries are here to be found.`;
}

function take(files) {
  if (!library) return tell("The library is not read yet; give it the file again in a moment.");
  for (const file of files) parts.push({ file });
  showParts();
  view("search");
  ask();
}

get("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
get("file").addEventListener("change", ({ target }) => { take(target.files); target.value = ""; });
get("more").addEventListener("click", () => ask(asked, offset));
for (const id of ["minus", "column", "operator", "value", "segments"]) get(id).addEventListener("change", () => ask());
for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => view(button.dataset.view));
}
let depth = 0;
const dragging = (by) => { depth += by; document.body.classList.toggle("dragging", depth > 0); };
addEventListener("dragenter", () => dragging(1));
addEventListener("dragleave", () => dragging(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(-depth);
  take(event.dataTransfer.files);
});

try {
  library = await (await fetched("library")).json();
  fill();
} catch (error) {
  tell(error.message);
}

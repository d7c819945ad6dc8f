// The page: what is asked, what was found, one item at a time, the map.
import { el, fetched, get } from "./dom.js";
import { fileOf, large, thumbnail } from "./media.js";
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

/* What is asked */

function question() {
  const form = new FormData();
  const words = get("words").value.trim(), minus = get("minus").value.trim();
  if (words) form.append("words", words);
  if (minus) form.append("minus", minus);
  for (const { file, item } of parts) {
    if (item) form.append("like", item.id);
    else {
      form.append("file", file, "upload"); // its name stays here
      const kind = modalityOf(file);
      if (kind) form.set("query_modality", kind);
    }
  }
  const chosen = [...get("modalities").querySelectorAll("input")];
  if (chosen.some((box) => !box.checked)) {
    for (const box of chosen) if (box.checked) form.append("modality", box.value);
  }
  const column = get("column").value, value = get("value").value.trim();
  if (column && value) form.append("where", condition(column, OPERATORS[get("operator").value], value));
  if (get("segments").checked) form.append("segments", "true");
  return form;
}

function condition(column, operator, value) {
  const isNumber = library.columns[column] === "number" && value !== "" && !Number.isNaN(Number(value));
  const isTruth = library.columns[column] === "boolean";
  return `"${column}" ${operator} ${isNumber || isTruth ? value : `'${value.replaceAll("'", "''")}'`}`;
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
  get("problem").textContent = "";
  if (isEmpty(form)) return;
  if (parts.some(({ file }) => file?.size > library.max_upload_bytes)) {
    get("problem").textContent = `Files of at most ${Math.floor(library.max_upload_bytes / 2 ** 20)} MB can be asked with.`;
    return;
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
    get("problem").textContent = error.message;
  }
}

function showParts() {
  get("parts").replaceChildren(...parts.map((part) => {
    const name = part.item ? title(part.item) : part.file.name;
    const remove = el("button", {
      type: "button", "aria-label": `Ask without ${name}`,
      onclick: () => { parts = parts.filter((other) => other !== part); showParts(); ask(); },
    }, "×");
    const isPicture = part.file?.type.startsWith("image/");
    const face = isPicture ? [el("img", { src: URL.createObjectURL(part.file), alt: "" })] : [];
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
    el("h3", {}, title(item)),
    el("span", { className: "quiet" }, [item.modality, seconds].filter(Boolean).join(" · ")),
    el("div", { className: "bottom" },
      el("span", { className: "quiet", title: scores },
        el("meter", { min: 0, max: 1, value: item.score, "aria-label": scores }), ` ${match(item.score)}`),
      el("button", { type: "button", onclick: () => askWith({ item }, true), "aria-label": `More like ${title(item)}` }, "More like this")));
  const article = el("article", { className: "card" }, ...thumbnail(item, () => open(item)), text);
  article.dataset.id = item.id;
  article.dataset.modality = item.modality;
  if (article.querySelector("video")) text.querySelector("h3").replaceChildren(el("button", { type: "button", onclick: () => open(item) }, title(item)));
  return el("li", {}, article);
}

/* One item */

async function open(item) {
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
    stopMedia = stop;
    get("item-media").replaceChildren(media);
  } catch (error) {
    get("item-media").replaceChildren(el("p", {}, error.message));
  }
}

get("item").addEventListener("close", () => {
  stopMedia();
  stopMedia = () => {};
  get("item-media").replaceChildren();
});

/* The rest of the page */

function view(name) {
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === name));
  }
  get("search").hidden = name !== "search";
  get("map").hidden = name !== "map";
  if (name === "map") showMap(async (id) => open(await (await fetched(`items/${id}`)).json()));
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
  get("problem").textContent = error.message;
}

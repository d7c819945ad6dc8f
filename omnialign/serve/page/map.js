// All files in a plane: drag, zoom, point at one to see it, open it.
import { el, fetched, get } from "./dom.js";
import { previewOf } from "./media.js";
import { title } from "./words.js";

const COLORS = ["#4c6fff", "#e5793b", "#12a594", "#c2408f", "#8a6d00", "#7a5af8", "#d64545", "#4d8b31"];
const REACH = 12; // pixels from which a point is pointed at
const DWELL = 150; // milliseconds on a point until it is asked for
const WAIT = 1500; // milliseconds until the map is asked for again

let points = null;
let view = { x: 0.5, y: 0.5, scale: 1 };
let near = -1;
let dwelling = 0, asking = new AbortController(); // for what is pointed at
let marked = new Set();
const known = new Map();

const plane = get("plane"), hover = get("hover");

/** Shows the map; `open` is called with the id of a file. */
export async function showMap(open) {
  if (!points && !(await load())) return;
  listen(open);
  draw();
}

/** Files that stand out: the results of the last question. */
export function mark(ids) {
  marked = new Set(ids);
  if (points) draw();
}

async function load() {
  const status = get("map-status");
  status.textContent = "The map is being drawn; the first time this takes a while.";
  try {
    let answer = await fetched("map");
    while (answer.status === 202) {
      await new Promise((resolve) => setTimeout(resolve, WAIT));
      answer = await fetched("map");
    }
    const { steps, modalities, ids, modality, places } = await answer.json();
    points = { ids, modality, places: Float32Array.from(places, (place) => place / steps) };
    status.textContent = `${ids.length} files: what is alike lies together.`;
    get("legend").replaceChildren(...modalities.map((name, i) => {
      const dot = el("i");
      dot.style.background = COLORS[i % COLORS.length];
      return el("li", {}, dot, name);
    }));
  } catch (error) {
    status.textContent = error.message;
  }
  return points !== null;
}

function size() {
  const { clientWidth: width, clientHeight: height } = plane;
  return { width, height, side: 0.92 * Math.min(width, height) * view.scale };
}

const toScreen = (i, { width, height, side }) => [
  width / 2 + (points.places[2 * i] - view.x) * side,
  height / 2 + (points.places[2 * i + 1] - view.y) * side,
];

function draw() {
  const ratio = devicePixelRatio || 1, shape = size();
  plane.width = shape.width * ratio;
  plane.height = shape.height * ratio;
  const context = plane.getContext("2d");
  context.scale(ratio, ratio);
  const side = Math.max(2, Math.min(9, 60 / Math.sqrt(points.ids.length) * Math.sqrt(view.scale) * 2));
  context.globalAlpha = 0.8;
  for (let i = 0; i < points.ids.length; i++) {
    const [x, y] = toScreen(i, shape);
    if (x < -9 || y < -9 || x > shape.width + 9 || y > shape.height + 9) continue;
    context.fillStyle = COLORS[points.modality[i] % COLORS.length];
    context.fillRect(x - side / 2, y - side / 2, side, side);
    if (marked.has(points.ids[i])) ring(context, x, y, side + 3);
  }
  context.globalAlpha = 1;
  if (near >= 0) ring(context, ...toScreen(near, shape), side + 5);
}

function ring(context, x, y, radius) {
  context.strokeStyle = getComputedStyle(plane).color;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.stroke();
}

function nearest(x, y, reach) {
  const shape = size();
  let best = -1, least = reach * reach;
  for (let i = 0; i < points.ids.length; i++) {
    const [px, py] = toScreen(i, shape);
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

/** Forgets what was pointed at, and gives up asking for it. */
function leave(i) {
  near = i;
  clearTimeout(dwelling);
  asking.abort();
  asking = new AbortController();
}

function point(i) {
  if (i === near) return;
  leave(i);
  draw();
  hover.hidden = i < 0;
  if (i < 0) return;
  const shape = size(), [x, y] = toScreen(i, shape);
  hover.style.left = `${Math.min(Math.max(x + 14, 0), shape.width - 200)}px`;
  hover.style.top = `${Math.min(Math.max(y + 14, 0), shape.height - 180)}px`;
  const [picture, caption] = hover.children;
  picture.hidden = true;
  picture.removeAttribute("src");
  caption.textContent = "…";
  const { signal } = asking;
  dwelling = setTimeout(() => describe(points.ids[i], picture, caption, signal), DWELL);
}

async function describe(id, picture, caption, signal) {
  try {
    if (!known.has(id)) known.set(id, await (await fetched(`items/${id}`, { signal })).json());
  } catch (error) {
    if (error.name !== "AbortError") get("problem").textContent = caption.textContent = error.message;
    return;
  }
  if (signal.aborted) return;
  const item = known.get(id);
  caption.textContent = title(item);
  get("map-status").textContent = `${item.modality}: ${title(item)}`;
  picture.onload = () => { picture.hidden = false; };
  picture.src = previewOf(item);
}

function move(x, y, factor = 1) {
  const { side } = size();
  view.x -= x / side;
  view.y -= y / side;
  view.scale = Math.max(0.6, Math.min(200, view.scale * factor));
  hover.hidden = true;
  leave(-1);
  draw();
}

function listen(open) {
  let dragged = 0;
  plane.onpointerdown = (event) => { dragged = 0; plane.setPointerCapture(event.pointerId); };
  plane.onpointermove = (event) => {
    if (event.buttons) {
      dragged += Math.abs(event.movementX) + Math.abs(event.movementY);
      move(event.movementX, event.movementY);
    } else point(nearest(event.offsetX, event.offsetY, REACH));
  };
  plane.onpointerleave = () => point(-1);
  plane.onclick = (event) => {
    const i = nearest(event.offsetX, event.offsetY, REACH);
    if (dragged < 5 && i >= 0) open(points.ids[i]);
  };
  plane.onwheel = (event) => {
    event.preventDefault();
    const { width, height, side } = size(), factor = Math.exp(-event.deltaY * 0.0015);
    const [x, y] = [event.offsetX - width / 2, event.offsetY - height / 2];
    view.x += (x / side) * (1 - 1 / factor);
    view.y += (y / side) * (1 - 1 / factor);
    move(0, 0, factor);
  };
  const keys = {
    ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40],
    "+": [0, 0, 1.3], "-": [0, 0, 1 / 1.3],
  };
  plane.onkeydown = (event) => {
    if (event.key === "Enter" && near >= 0) open(points.ids[near]);
    if (!keys[event.key]) return;
    event.preventDefault();
    move(...keys[event.key]);
    const { width, height } = size();
    point(nearest(width / 2, height / 2, Infinity));
  };
}

new ResizeObserver(() => { if (points) draw(); }).observe(plane);

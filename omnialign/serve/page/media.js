// An item to see or to hear: as its file if browsers play it, as its preview otherwise.
import { el, fetched } from "./dom.js";
import { moment, title } from "./words.js";

const of = (item, what) => `items/${encodeURIComponent(item.id)}/${what}`;
export const fileOf = (item) => of(item, "file");
export const previewOf = (item) => of(item, "preview");
const kind = (mime) => mime.split("/")[0];

/** A player of the file that begins at the second that fits. */
function player(item) {
  const from = item.start_seconds > 0 ? `#t=${item.start_seconds}` : "";
  const name = `${title(item)}${from && `, from ${moment(item).split(" ")[0]}`}`;
  const element = el(kind(item.mime), {
    controls: true, preload: "metadata", src: fileOf(item) + from, "aria-label": name,
  });
  element.addEventListener("error", async () => {
    element.replaceWith(await shown(item));
  }, { once: true });
  return element;
}

/** A picture that is here already; its address is given back once it is shown. */
export function pictureOf(data, alt) {
  const src = URL.createObjectURL(data), revoke = () => URL.revokeObjectURL(src);
  return el("img", { src, alt, onload: revoke, onerror: revoke });
}

/** The preview, whatever it is. */
async function shown(item) {
  const address = previewOf(item);
  try {
    const answer = await fetched(address);
    const data = await answer.blob();
    if (kind(data.type) === "text") return el("p", {}, await data.text());
    if (kind(data.type) === "audio") {
      return el("audio", { controls: true, src: URL.createObjectURL(data), "aria-label": title(item) });
    }
    return pictureOf(data, title(item));
  } catch (error) {
    return el("p", {}, `No preview: ${error.message}`);
  }
}

const plays = (item) => ["audio", "video"].includes(kind(item.mime));

const waiting = new WeakMap();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    shown(waiting.get(target)).then((media) => target.replaceChildren(media));
  }
}, { rootMargin: "300px" });

/** For a card: the part that opens the item, and a player where there is sound or film. */
export function thumbnail(item, open) {
  const label = `Open: ${title(item)}`;
  if (plays(item)) {
    const sign = el("span", { className: "sign", "aria-hidden": "true" }, "♪");
    const face = kind(item.mime) === "audio"
      ? [el("button", { className: "show", type: "button", onclick: open, "aria-label": label }, sign)]
      : [];
    return [...face, player(item)];
  }
  const show = el("button", { className: "show", type: "button", onclick: open, "aria-label": label });
  if (kind(item.mime) === "image") {
    show.append(el("img", { src: previewOf(item), alt: title(item), loading: "lazy" }));
  } else {
    waiting.set(show, item);
    observer.observe(show);
  }
  return [show];
}

/** For the dialog; what was started is ended by `stop`. */
export async function large(item) {
  if (plays(item)) return { media: player(item), stop() {} };
  if (kind(item.mime) === "image") {
    const media = el("img", { src: fileOf(item), alt: title(item) });
    media.addEventListener("error", () => { media.src = previewOf(item); }, { once: true });
    return { media, stop() {} };
  }
  if (item.interactive) {
    const { turn } = await import("./viewer.js");
    const answer = await fetched(`${previewOf(item)}?interactive=true`);
    const media = el("canvas", {
      tabIndex: 0, role: "img", "aria-label": `${title(item)}. Arrow keys turn it, plus and minus zoom.`,
    });
    return { media, stop: turn(media, await answer.arrayBuffer()) };
  }
  return { media: await shown(item), stop() {} };
}

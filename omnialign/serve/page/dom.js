// Elements and requests in a line each.

export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export const get = (id) => document.getElementById(id);

/** As `fetch`; what the service refuses is an Error with its sentence. */
export async function fetched(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer; is it still running?");
  }
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error ?? `The service answers ${answer.status}.`);
  }
  return answer;
}

export const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// The service's own OpenAPI description, as a page.
import { el, fetched } from "./dom.js";

const schema = await (await fetched("openapi.json")).json();

function resolved(part) {
  return part?.$ref ? part.$ref.split("/").slice(1).reduce((found, key) => found[key], schema) : part;
}

function type(part) {
  const options = part.anyOf ?? [part];
  const names = options.map((o) => o.type === "array" ? `${o.items.type ?? "item"}, repeated` : o.type);
  return names.filter((name) => name && name !== "null").join(" or ");
}

function row(name, place, part, description) {
  return el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, place),
    el("td", {}, type(part)), el("td", {}, description ?? part.description ?? ""));
}

for (const [path, methods] of Object.entries(schema.paths)) {
  for (const [method, about] of Object.entries(methods)) {
    const rows = (about.parameters ?? []).map((p) => row(p.name, p.in, p.schema, p.description));
    const content = Object.values(about.requestBody?.content ?? {})[0];
    for (const [name, part] of Object.entries(resolved(content?.schema)?.properties ?? {})) {
      rows.push(row(name, "form", part));
    }
    document.querySelector("#paths").append(
      el("h2", {}, `${method.toUpperCase()} ${path}`),
      el("p", {}, about.description ?? about.summary),
      el("table", {}, el("tbody", {}, ...rows)),
    );
  }
}

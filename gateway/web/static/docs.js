// The API's documentation, made from /openapi.json.

import { getJson, savedKey, saveKey } from "./api.js";
import { element } from "./render.js";
import { Schemas } from "./schema.js";

const $ = (id) => document.getElementById(id);
const METHODS = ["get", "post", "put", "patch", "delete"];
const MOST_SHOWN = 100_000;

let schemas;

const jsonSchema = (content) => content?.["application/json"]?.schema;

function operationBox(method, path, operation) {
  const box = element("details", "operation");
  box.id = operation.operationId ?? `${method}-${path}`;
  const summary = element("summary");
  summary.append(
    element("span", "method", method.toUpperCase()),
    element("span", "path", path),
    element("span", "summary", operation.summary ?? ""),
  );
  const inside = element("div", "inside");
  box.append(summary, inside);
  box.addEventListener("toggle", () => fill(inside, method, path, operation), { once: true });
  return box;
}

function fill(inside, method, path, operation) {
  if (operation.description) inside.append(element("p", "", operation.description));
  const parameters = operation.parameters ?? [];
  if (parameters.length) {
    inside.append(element("h3", "", "Parameters"));
    const properties = Object.fromEntries(
      parameters.map(({ name, schema, description }) => [name, { ...schemas.resolve(schema), description }]),
    );
    const required = parameters.filter((parameter) => parameter.required).map(({ name }) => name);
    inside.append(schemas.table({ properties, required }));
  }
  const body = jsonSchema(operation.requestBody?.content);
  if (body) inside.append(element("h3", "", "Body"), schemas.table(body));
  inside.append(element("h3", "", "Answers"));
  for (const [status, response] of Object.entries(operation.responses ?? {})) {
    const schema = jsonSchema(response.content);
    const line = element("p", "", `${status}  ${response.description ?? ""}`);
    inside.append(line);
    if (schema) schemas.objectsIn(schema).forEach((found) => inside.append(schemas.nested(found, 0)));
  }
  inside.append(tryIt(method, path, parameters, body, Boolean(operation.requestBody)));
}

function tryIt(method, path, parameters, body, takesBody) {
  const form = element("form", "try");
  form.append(element("h3", "", "Try it"));
  const fields = parameters
    .filter((parameter) => parameter.in === "path" || parameter.in === "query")
    .map((parameter) => {
      const label = element("label", "", parameter.name);
      const input = element("input");
      input.required = Boolean(parameter.required);
      label.append(input);
      form.append(label);
      return { parameter, input };
    });
  const text = element("textarea");
  if (body) {
    text.rows = 8;
    text.spellcheck = false;
    text.setAttribute("aria-label", "Body");
    text.value = JSON.stringify(schemas.example(body), null, 2);
    form.append(text);
  }
  const button = element("button", "", "Send");
  button.disabled = takesBody && !body;
  const shown = element("pre");
  shown.hidden = true;
  shown.tabIndex = 0;
  form.append(button, shown);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    shown.hidden = false;
    shown.textContent = "…";
    shown.textContent = await send(method, urlOf(path, fields), body && text.value);
  });
  return form;
}

function urlOf(path, fields) {
  const query = new URLSearchParams();
  let url = path;
  for (const { parameter, input } of fields) {
    if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(parameter.name, input.value);
  }
  return query.size ? `${url}?${query}` : url;
}

async function send(method, url, body) {
  const key = savedKey();
  try {
    const response = await fetch(url, {
      method: method.toUpperCase(),
      headers: {
        ...(body ? { "Content-Type": "application/json" } : {}),
        ...(key ? { Authorization: `Bearer ${key}` } : {}),
      },
      body,
    });
    const text = await response.text();
    const shown = text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}…` : text;
    return `HTTP ${response.status}\nx-request-id: ${response.headers.get("x-request-id")}\n\n${pretty(shown)}`;
  } catch {
    return "The server cannot be reached.";
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function show() {
  let schema;
  try {
    schema = await getJson("/openapi.json");
  } catch (error) {
    $("key-form").hidden = error.status !== 401;
    $("problem").textContent = savedKey() || error.status !== 401 ? error.message : "";
    $("status").textContent = error.status === 401 ? "This server asks for an API key." : error.message;
    return;
  }
  schemas = new Schemas(schema);
  // The link could not carry the key, so it carries the document.
  $("schema-link").href = URL.createObjectURL(new Blob([JSON.stringify(schema, null, 2)], { type: "application/json" }));
  $("title").textContent = `${schema.info.title} ${schema.info.version}`;
  const groups = new Map();
  for (const [path, methods] of Object.entries(schema.paths)) {
    for (const method of METHODS) {
      const operation = methods[method];
      if (!operation) continue;
      const tag = operation.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationBox(method, path, operation));
    }
  }
  const parts = [...groups].flatMap(([tag, boxes]) => [element("h2", "", tag), ...boxes]);
  $("operations").replaceChildren(element("p", "", schema.info.description ?? ""), ...parts);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  saveKey($("key").value.trim());
  show();
});
show();

// Shows JSON Schemas as tables, and makes a first example of a body.

import { element } from "./render.js";

const DEEPEST = 8;

export class Schemas {
  constructor(document) {
    this.document = document;
  }

  resolve(schema) {
    let found = schema ?? {};
    for (let hops = 0; found.$ref && hops < DEEPEST; hops += 1) {
      const path = found.$ref.slice(2).split("/");
      found = path.reduce((node, name) => node?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], this.document) ?? {};
    }
    return found;
  }

  // A few words: the type and its bounds.
  describe(given) {
    const schema = this.resolve(given);
    const choices = schema.anyOf ?? schema.oneOf;
    if (choices) return [...new Set(choices.map((choice) => this.describe(choice)))].join(" or ");
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
    const type = [].concat(schema.type ?? "anything").join(" or ");
    if (type === "array") return `list of ${this.describe(schema.items)}`;
    const low = schema.minimum ?? schema.exclusiveMinimum;
    const bounds = [
      low !== undefined ? `${schema.exclusiveMinimum === undefined ? "≥" : ">"} ${low}` : "",
      schema.maximum !== undefined ? `≤ ${schema.maximum}` : "",
      schema.maxLength !== undefined ? `at most ${schema.maxLength} characters` : "",
    ].filter(Boolean);
    return bounds.length ? `${type} (${bounds.join(", ")})` : type;
  }

  // The object schemas inside of one: itself, its items, or its alternatives.
  objectsIn(given) {
    const schema = this.resolve(given);
    if (schema.properties) return [schema];
    if (schema.items) return this.objectsIn(schema.items);
    return (schema.anyOf ?? schema.oneOf ?? []).flatMap((choice) => this.objectsIn(choice));
  }

  table(given, depth = 0) {
    const schema = this.resolve(given);
    if (!schema.properties) return element("p", "", this.describe(schema));
    const table = element("table", "fields");
    const head = table.insertRow();
    for (const title of ["Field", "Type", ""]) head.append(element("th", "", title));
    for (const [name, property] of Object.entries(schema.properties)) {
      const row = table.insertRow();
      const cell = row.insertCell();
      cell.append(name);
      if (schema.required?.includes(name)) cell.append(element("span", "required", " *"));
      row.insertCell().append(this.describe(property));
      const about = row.insertCell();
      about.append(this.resolve(property).description ?? "");
      if (depth < DEEPEST) this.objectsIn(property).forEach((inner) => about.append(this.nested(inner, depth + 1)));
    }
    return table;
  }

  // Filled when it is opened: schemas may contain themselves.
  nested(schema, depth) {
    const details = element("details", "nested");
    details.append(element("summary", "", schema.title ?? "Fields"));
    details.addEventListener("toggle", () => details.append(this.table(schema, depth)), { once: true });
    return details;
  }

  example(given, name = "", depth = 0) {
    const schema = this.resolve(given);
    if (schema.examples?.length) return schema.examples[0];
    if (schema.example !== undefined) return schema.example;
    if (schema.default !== undefined) return schema.default;
    if (schema.const !== undefined) return schema.const;
    if (schema.enum) return schema.enum[0];
    const choices = schema.anyOf ?? schema.oneOf;
    if (choices) return this.example(choices[0], name, depth + 1);
    if (name === "messages") return [{ role: "user", content: "Hello! Who are you?" }];
    if (schema.properties && depth < DEEPEST) {
      const wanted = Object.entries(schema.properties).filter(([key]) => schema.required?.includes(key));
      return Object.fromEntries(wanted.map(([key, value]) => [key, this.example(value, key, depth + 1)]));
    }
    if (schema.type === "array") return schema.minItems ? [this.example(schema.items, "", depth + 1)] : [];
    if (schema.type === "object") return {};
    if (schema.type === "boolean") return false;
    if (schema.type === "integer" || schema.type === "number") return schema.minimum ?? 1;
    return "Hello";
  }
}

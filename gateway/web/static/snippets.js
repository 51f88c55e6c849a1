// "Copy as": a request as something that runs elsewhere. The key itself is never part of it.

const shellQuote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

const isEmbedding = (body) => "input" in body;

export function asCurl(origin, body, { needsKey }) {
  const route = isEmbedding(body) ? "embeddings" : "chat/completions";
  return [
    `curl -sN ${shellQuote(`${origin}/v1/${route}`)}`,
    `-H 'Content-Type: application/json'`,
    ...(needsKey ? [`-H "Authorization: Bearer $OPENAI_API_KEY"`] : []),
    `-d ${shellQuote(JSON.stringify(body))}`,
  ].join(" \\\n  ");
}

// A string of JSON is a string of Python, too.
function pythonLiteral(value, indent = "    ") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((item) => pythonLiteral(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${pythonLiteral(item, inner)}`);
  const line = `${open}${items.join(", ")}${close}`;
  if (line.length < 80 && !line.includes("\n")) return line;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

// Fields that OpenAI's SDK has no argument for travel in extra_body.
const EXTRAS = new Set(["top_k", "min_p", "chat_template_kwargs"]);

export function asPython(origin, body, { needsKey }) {
  const named = [];
  const extra = {};
  for (const [name, value] of Object.entries(body)) {
    if (name === "stream_options" || value === undefined) continue;
    if (EXTRAS.has(name)) extra[name] = value;
    else named.push(`    ${name}=${pythonLiteral(value)},`);
  }
  if (Object.keys(extra).length) named.push(`    extra_body=${pythonLiteral(extra)},`);
  return [
    ...(needsKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    "client = OpenAI(",
    `    base_url=${JSON.stringify(`${origin}/v1`)},`,
    `    api_key=${needsKey ? 'os.environ["OPENAI_API_KEY"]' : '"none"'},`,
    ")",
    ...(isEmbedding(body) ? embeddingLines(named) : chatLines(named, Boolean(body.tools))),
    "",
  ].join("\n");
}

const embeddingLines = (named) => [
  "answer = client.embeddings.create(",
  ...named,
  ")",
  "for item in answer.data:",
  "    print(item.embedding)",
];

const chatLines = (named, hasTools) => [
  "stream = client.chat.completions.create(",
  ...named,
  ")",
  "for chunk in stream:",
  "    if chunk.choices:",
  '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
  ...(hasTools
    ? ["        for call in chunk.choices[0].delta.tool_calls or []:", "            print(call.function)"]
    : []),
  "print()",
];

// Resolves to whether the text is on the clipboard. Pages that came over plain HTTP from
// another machine have no clipboard API, only the old command.
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const before = document.activeElement;
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "unseen";
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    before?.focus();
    return copied;
  }
}

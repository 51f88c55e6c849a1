// "Copy as": the current request as something that runs elsewhere. The key is never included.

const shellQuote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function asCurl(origin, body) {
  return [
    `curl ${shellQuote(`${origin}/v1/chat/completions`)}`,
    `-H 'Content-Type: application/json'`,
    `-H "Authorization: Bearer $OPENAI_API_KEY"`,
    `-d ${shellQuote(JSON.stringify(body))}`,
  ].join(" \\\n  ");
}

function pythonLiteral(value, indent = "    ") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    const items = value.map((item) => `${indent}    ${pythonLiteral(item, `${indent}    `)},\n`);
    return `[\n${items.join("")}${indent}]`;
  }
  if (typeof value === "object") {
    const items = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${pythonLiteral(v, indent)}`);
    return `{${items.join(", ")}}`;
  }
  return JSON.stringify(value);
}

// Fields that OpenAI's SDK has no argument for travel in extra_body.
const EXTRAS = ["chat_template_kwargs"];

export function asPython(origin, body) {
  const named = Object.entries(body).filter(([name]) => !EXTRAS.includes(name) && name !== "stream_options");
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => EXTRAS.includes(name)));
  const lines = named.map(([name, value]) => `    ${name}=${pythonLiteral(value)},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${pythonLiteral(extra)},`);
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${origin}/v1", api_key=os.environ.get("OPENAI_API_KEY", "none"))`,
    "for chunk in client.chat.completions.create(",
    ...lines,
    "):",
    '    if chunk.choices:',
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
    "",
  ].join("\n");
}

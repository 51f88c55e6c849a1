// The request that the controls describe.

const $ = (id) => document.getElementById(id);

const NUMBERS = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "max_tokens",
  "seed",
  "presence_penalty",
  "frequency_penalty",
];

export class SettingsError extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

// The body of POST /v1/chat/completions. Throws SettingsError.
export function requestBody(messages) {
  const system = $("system").value.trim();
  const body = {
    model: $("model").value || undefined,
    messages: system ? [{ role: "system", content: system }, ...messages] : [...messages],
    stream: true,
    stream_options: { include_usage: true },
  };
  for (const id of NUMBERS) {
    const field = $(id);
    if (!field.validity.valid) {
      const name = field.labels[0].textContent.trim();
      throw new SettingsError(`${name}: ${field.validationMessage}`, field);
    }
    if (field.value !== "") body[id] = Number(field.value);
  }
  const tools = readTools($("tools"));
  if (tools) body.tools = tools;
  const reasoning = $("reasoning").value;
  if (reasoning === "on" || reasoning === "off")
    body.chat_template_kwargs = { enable_thinking: reasoning === "on" };
  else if (reasoning) body.reasoning_effort = reasoning;
  return body;
}

function readTools(field) {
  if (!field.value.trim()) return null;
  try {
    const tools = JSON.parse(field.value);
    if (Array.isArray(tools) && tools.length) return tools;
  } catch (error) {
    throw new SettingsError(`Tools: not valid JSON (${error.message})`, field);
  }
  throw new SettingsError("Tools: this has to be a JSON list of tools.", field);
}

// The part that talks to the server: the key, errors, and the event stream.

const KEY = "llm-gateway-key";

export class ApiError extends Error {
  constructor(message, { status = 0, code = null, requestId = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
  }
}

// sessionStorage belongs to this tab and ends with it. Where it is switched off, memory does.
let keyInMemory = "";

export function savedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? keyInMemory;
  } catch {
    return keyInMemory;
  }
}

export function saveKey(key) {
  keyInMemory = key;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // kept in memory
  }
}

async function request(path, options = {}) {
  const key = savedKey();
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (response.ok) return response;
  const about = { status: response.status, requestId: response.headers.get("x-request-id") };
  let message = `The server answered with status ${response.status}.`;
  try {
    const { error } = await response.json();
    message = error.message;
    about.code = error.code;
  } catch {
    // Not one of the server's own errors: the status says what there is to say.
  }
  throw new ApiError(message, about);
}

export const getJson = async (path) => (await request(path)).json();

// Names of models, and whether each answers ("generation") or makes "embeddings".
export async function listModels() {
  return (await getJson("/v1/models")).data.map(({ id, task }) => ({ id, task }));
}

// What a loading server is busy with. Answers 503 while it loads, which is no error here.
export async function loadingStage() {
  try {
    const { stage, fraction } = await (await fetch("/health/startup", { cache: "no-store" })).json();
    return fraction === null ? stage : `${stage}, ${Math.round(fraction * 100)} %`;
  } catch {
    return "";
  }
}

// Yields the parsed `data:` events of one streamed chat completion, until [DONE].
export async function* streamChat(body, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const about = { requestId: response.headers.get("x-request-id") };
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await read(reader, about);
    if (done) throw new ApiError("The connection ended before the answer was complete.", about);
    buffer += value;
    const events = buffer.split(/\r?\n\r?\n/);
    buffer = events.pop();
    for (const event of events) {
      if (!event.startsWith("data:")) continue;
      const data = event.slice(5).trim();
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, { ...about, code: chunk.error.code });
      yield chunk;
    }
  }
}

async function read(reader, about) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection broke before the answer was complete.", about);
  }
}

// The playground: conversation state and what the buttons do.

import { ApiError, listModels, saveKey, streamChat } from "./api.js";
import { Turn } from "./render.js";
import { asCurl, asPython } from "./snippets.js";

const $ = (id) => document.getElementById(id);
const log = $("log");
let messages = [];
let running = null;

const numberOf = (id) => ($(id).value === "" ? undefined : Number($(id).value));

function requestBody() {
  const system = $("system").value.trim();
  const body = {
    model: $("model").value,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
    stream: true,
    stream_options: { include_usage: true },
  };
  for (const id of ["temperature", "top_p", "max_tokens", "seed"]) {
    const value = numberOf(id);
    if (value !== undefined) body[id] = value;
  }
  if ($("tools").value.trim()) body.tools = JSON.parse($("tools").value);
  if ($("thinking").checked) body.chat_template_kwargs = { enable_thinking: true };
  return body;
}

function setRunning(controller) {
  running = controller;
  $("send").hidden = Boolean(controller);
  $("stop").hidden = !controller;
  $("retry").hidden = Boolean(controller) || !messages.some((m) => m.role === "user");
}

function addCallPart(calls, part) {
  const call = (calls[part.index] ??= { id: "", name: "", arguments: "" });
  if (part.id) call.id = part.id;
  call.name += part.function?.name ?? "";
  call.arguments += part.function?.arguments ?? "";
}

const nearBottom = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;

async function answer() {
  let body;
  try {
    body = requestBody();
  } catch {
    $("stats").textContent = "Tools: this is not valid JSON.";
    return;
  }
  const turn = new Turn(log, "assistant");
  const calls = [];
  const began = performance.now();
  let first = 0;
  let tokens = 0;
  let text = "";
  let reasoning = "";
  let painted = true;
  const paint = () => {
    painted = true;
    const follow = nearBottom();
    turn.setText(text);
    if (reasoning) turn.setReasoning(reasoning);
    const seconds = (performance.now() - first) / 1000;
    const speed = tokens > 1 && seconds > 0 ? ` · ${((tokens - 1) / seconds).toFixed(1)} tok/s` : "";
    if (first) $("stats").textContent = `TTFT ${Math.round(first - began)} ms · ${tokens} tokens${speed}`;
    if (follow) log.scrollTop = log.scrollHeight;
  };
  const controller = new AbortController();
  setRunning(controller);
  $("stats").textContent = "Waiting for the first token …";
  let failed = false;
  try {
    for await (const chunk of streamChat(body, controller.signal)) {
      if (chunk.usage) tokens = chunk.usage.completion_tokens;
      const delta = chunk.choices[0]?.delta;
      if (!delta) continue;
      const thought = delta.reasoning ?? delta.reasoning_content;
      if (!first && (delta.content || thought || delta.tool_calls)) first = performance.now();
      if (delta.content || thought || delta.tool_calls) tokens += 1;
      text += delta.content ?? "";
      reasoning += thought ?? "";
      delta.tool_calls?.forEach((part) => addCallPart(calls, part));
      // One repaint per frame however many chunks arrive: long streams stay smooth.
      if (painted) {
        painted = false;
        requestAnimationFrame(paint);
      }
    }
  } catch (error) {
    failed = error.name !== "AbortError";
    if (failed) turn.setError(error.message);
    if (error instanceof ApiError && error.status === 401) askForKey();
  }
  paint();
  if (controller.signal.aborted) $("stats").textContent += " · stopped";
  if (!failed && (text || calls.length)) keep(text, calls, turn);
  setRunning(null);
  $("input").focus();
}

function keep(text, calls, turn) {
  const message = { role: "assistant", content: text };
  if (calls.length) {
    message.tool_calls = calls.map(({ id, name, arguments: args }) => ({
      id,
      type: "function",
      function: { name, arguments: args },
    }));
    turn.showTools(calls, (results) => {
      results.forEach(({ id, result }) => messages.push({ role: "tool", tool_call_id: id, content: result }));
      answer();
    });
  }
  messages.push(message);
}

function send() {
  const text = $("input").value;
  if (!text.trim() || running) return;
  $("empty")?.remove();
  $("input").value = "";
  messages.push({ role: "user", content: text });
  new Turn(log, "user").setText(text);
  log.scrollTop = log.scrollHeight;
  answer();
}

function retry() {
  while (messages.length && messages.at(-1).role !== "user") messages.pop();
  const turns = [...log.querySelectorAll(".turn")];
  for (const turn of turns.reverse()) {
    if (turn.classList.contains("user")) break;
    turn.remove();
  }
  answer();
}

function askForKey() {
  $("key").value = "";
  $("key-dialog").showModal();
}

async function loadModels() {
  try {
    const models = await listModels();
    $("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
    $("stats").textContent = "";
  } catch (error) {
    $("stats").textContent = error.message;
    if (error.status === 401) askForKey();
    else setTimeout(loadModels, 2000);
  }
}

async function copy(make) {
  try {
    await navigator.clipboard.writeText(make(location.origin, requestBody()));
    $("copied").textContent = "Copied.";
  } catch (error) {
    $("copied").textContent = error instanceof SyntaxError ? "Tools: this is not valid JSON." : "Copying was refused by the browser.";
  }
  setTimeout(() => ($("copied").textContent = ""), 2500);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});
$("stop").addEventListener("click", () => running?.abort());
$("retry").addEventListener("click", retry);
$("new-chat").addEventListener("click", () => {
  running?.abort();
  messages = [];
  log.querySelectorAll(".turn").forEach((turn) => turn.remove());
  $("stats").textContent = "";
  $("retry").hidden = true;
  $("input").focus();
});
$("settings-toggle").addEventListener("click", () => {
  const open = $("settings").hidden;
  $("settings").hidden = !open;
  $("settings-toggle").setAttribute("aria-expanded", String(open));
});
$("copy-curl").addEventListener("click", () => copy(asCurl));
$("copy-python").addEventListener("click", () => copy(asPython));
$("key-form").addEventListener("submit", () => {
  saveKey($("key").value.trim());
  loadModels();
});

loadModels();

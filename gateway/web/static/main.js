// The playground: the conversation, and what the buttons do.

import { Answer } from "./answer.js";
import { ApiError, listModels, loadingStage, savedKey, saveKey } from "./api.js";
import { Turn } from "./render.js";
import { requestBody, SettingsError } from "./settings.js";
import { asCurl, asPython, copyText } from "./snippets.js";

const $ = (id) => document.getElementById(id);
const log = $("log");
const wide = matchMedia("(min-width: 60rem)");
const touch = matchMedia("(pointer: coarse)");
const MODEL_RETRY_MS = 2000;

let messages = [];
let turns = [];
let running = null;
let afterKey = null;
let modelTimer = 0;
let embedders = new Set();

const showStats = (text) => ($("stats").textContent = text);
const announce = (text) => ($("announce").textContent = text);
const nearBottom = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;
const toBottom = () => (log.scrollTop = log.scrollHeight);

// A focused field opens the keyboard of a phone over the answer.
function focusInput() {
  if (!touch.matches) $("input").focus();
}

function setRunning(answer) {
  const hadFocus = [$("stop"), $("send"), $("retry"), document.body].includes(document.activeElement);
  running = answer;
  log.setAttribute("aria-busy", String(Boolean(answer)));
  $("send").hidden = Boolean(answer);
  $("stop").hidden = !answer;
  $("retry").hidden = Boolean(answer) || !messages.length;
  if (hadFocus) focusInput();
}

function addTurn(role) {
  $("empty").hidden = true;
  const turn = new Turn(log, role);
  turns.push(turn);
  return turn;
}

function complain(error) {
  if (!(error instanceof SettingsError)) throw error;
  showStats(error.message);
  announce(error.message);
  if ($("settings").hidden) toggleSettings();
  error.field.focus();
}

// Answers the conversation as it stands. Its array is replaced by a new chat, so an answer
// that is still on its way then has nothing to add to.
async function answer() {
  const conversation = messages;
  let body;
  try {
    body = requestBody(conversation);
  } catch (error) {
    complain(error);
    $("retry").hidden = false;
    return;
  }
  const turn = addTurn("assistant");
  let follow = true;
  const current = new Answer(body, turn, (line) => {
    if (running !== current) return;
    showStats(line);
    if (follow) toBottom();
  });
  const onScroll = () => (follow = nearBottom());
  log.addEventListener("scroll", onScroll);
  setRunning(current);
  showStats(current.meter.line());
  announce("Answering");
  toBottom();
  let failure = null;
  try {
    await current.run();
  } catch (error) {
    failure = error;
    turn.showError(error instanceof ApiError ? error : new ApiError("The answer could not be read."));
    if (!(error instanceof ApiError)) console.error(error);
  }
  log.removeEventListener("scroll", onScroll);
  if (running !== current) return;
  settle(conversation, current, turn, failure);
  if (follow) toBottom();
}

function settle(conversation, current, turn, failure) {
  if (!failure && (current.text || current.calls.length)) conversation.push(current.message());
  setRunning(null);
  if (failure) {
    showStats("");
    if (failure.status === 401) askForKey(failure.message, retry);
  } else if (current.stopped) {
    turn.showNote("Stopped.");
    announce("Stopped");
  } else {
    if (current.finish === "length") turn.showNote("Cut off: the limit of tokens is reached.");
    announce(`Answered. ${current.meter.line()}`);
    if (current.calls.length) {
      turn.askForResults(current.calls, (results) => {
        if (conversation !== messages || running) return;
        for (const { id, result } of results)
          conversation.push({ role: "tool", tool_call_id: id, content: result });
        answer();
      });
    }
  }
}

function send() {
  const text = $("input").value;
  if (!text.trim() || running) return;
  // A message that the server refused would be refused again with every later one.
  if (messages.at(-1)?.role === "user") {
    messages.pop();
    turns.findLast((turn) => turn.role === "user")?.root.classList.add("dropped");
  }
  $("input").value = "";
  messages.push({ role: "user", content: text });
  const turn = addTurn("user");
  turn.addText(text);
  turn.finish();
  answer();
}

function retry() {
  if (running) return;
  while (messages.length && messages.at(-1).role !== "user") messages.pop();
  while (turns.length && turns.at(-1).role !== "user") turns.pop().root.remove();
  if (messages.length) answer();
}

function newChat() {
  running?.stop();
  messages = [];
  turns.forEach((turn) => turn.root.remove());
  turns = [];
  setRunning(null);
  $("empty").hidden = false;
  showStats("");
  announce("New chat");
  $("input").focus();
}

function askForKey(problem, then) {
  afterKey = then;
  $("key").value = "";
  $("key-problem").textContent = savedKey() ? problem : "";
  $("key-open").hidden = false;
  $("key-forget").hidden = !savedKey();
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

async function loadModels() {
  clearTimeout(modelTimer);
  try {
    const chosen = $("model").value;
    const models = await listModels();
    $("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
    embedders = new Set(models.filter(({ task }) => task === "embeddings").map(({ id }) => id));
    if (models.some(({ id }) => id === chosen)) $("model").value = chosen;
    if (!running) showStats("");
    return true;
  } catch (error) {
    if (error.status === 401) {
      showStats("This server asks for an API key.");
      askForKey(error.message, null);
      return false;
    }
    const stage = error.code === "model_loading" ? await loadingStage() : "";
    showStats(stage ? `The model is loading: ${stage}` : error.message);
    modelTimer = setTimeout(loadModels, MODEL_RETRY_MS);
    return false;
  }
}

// What would be sent now: the draft, or else the request behind the last answer.
function shownMessages() {
  const draft = $("input").value;
  if (draft.trim()) return [...messages, { role: "user", content: draft }];
  const end = messages.findLastIndex(({ role }) => role !== "assistant") + 1;
  return end ? messages.slice(0, end) : [{ role: "user", content: "Hello! Who are you?" }];
}

function shownRequest() {
  const model = $("model").value;
  if (!embedders.has(model)) return requestBody(shownMessages());
  return { model, input: [shownMessages().findLast(({ role }) => role === "user").content] };
}

async function copy(make) {
  let text;
  try {
    text = make(location.origin, shownRequest(), { needsKey: Boolean(savedKey()) });
  } catch (error) {
    complain(error);
    return;
  }
  if (await copyText(text)) {
    showStats("Copied.");
    announce("Copied");
    return;
  }
  $("snippet").value = text;
  $("snippet-dialog").showModal();
  $("snippet").select();
}

function toggleSettings() {
  const open = $("settings").hidden;
  $("settings").hidden = !open;
  $("settings-toggle").setAttribute("aria-expanded", String(open));
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
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) running?.stop();
});
$("stop").addEventListener("click", () => running?.stop());
$("retry").addEventListener("click", retry);
$("new-chat").addEventListener("click", newChat);
$("settings-toggle").addEventListener("click", toggleSettings);
$("copy-curl").addEventListener("click", () => copy(asCurl));
$("copy-python").addEventListener("click", () => copy(asPython));
$("key-open").addEventListener("click", () => askForKey("", null));
$("key-forget").addEventListener("click", () => {
  saveKey("");
  $("key-dialog").close();
  loadModels();
});
$("key-form").addEventListener("submit", async () => {
  saveKey($("key").value.trim());
  const then = afterKey;
  if (await loadModels()) {
    focusInput();
    then?.();
  }
});

if (wide.matches) toggleSettings();
if (savedKey()) $("key-open").hidden = false;
loadModels();

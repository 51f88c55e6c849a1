// One streamed answer: gathers its parts, measures it, and paints it once per frame.

import { streamChat } from "./api.js";

// Pieces that arrive within so short a time came in one packet, and say nothing about speed.
const SHORTEST_MS = 50;

// Times are in milliseconds of performance.now().
class Meter {
  constructor() {
    this.began = performance.now();
    this.first = 0;
    this.last = 0;
    this.tokens = 0;
    this.exact = false;
    this.prompt = null;
  }

  seeToken() {
    this.last = performance.now();
    this.first ||= this.last;
    this.tokens += 1;
  }

  seeUsage(usage) {
    this.tokens = usage.completion_tokens;
    this.prompt = usage.prompt_tokens;
    this.exact = true;
  }

  line() {
    if (!this.first) return "Waiting for the first token …";
    const parts = [`TTFT ${Math.round(this.first - this.began)} ms`, this.speed()];
    // Without the usage at the end, pieces of text are counted, which can hold several tokens.
    parts.push(`${this.exact ? "" : "~"}${this.tokens} tokens`);
    if (this.prompt !== null) parts.push(`prompt ${this.prompt}`);
    return parts.join(" · ");
  }

  speed() {
    const span = this.last - this.first;
    if (span >= SHORTEST_MS) return `${(((this.tokens - 1) / span) * 1000).toFixed(1)} tok/s`;
    return `over ${Math.floor((this.tokens / (this.last - this.began)) * 1000)} tok/s`;
  }
}

export class Answer {
  // turn: where it is shown; onPaint(line): called with the measurements after each repaint.
  constructor(body, turn, onPaint) {
    this.request = body;
    this.turn = turn;
    this.onPaint = onPaint;
    this.controller = new AbortController();
    this.meter = new Meter();
    this.text = "";
    this.reasoning = "";
    this.calls = [];
    this.finish = null;
    this.unpainted = { text: "", reasoning: "" };
    this.frame = 0;
  }

  get stopped() {
    return this.controller.signal.aborted;
  }

  stop() {
    this.controller.abort();
  }

  // Resolves when the answer has ended or was stopped; rejects with ApiError.
  async run() {
    try {
      for await (const chunk of streamChat(this.request, this.controller.signal)) {
        this.take(chunk);
        this.frame ||= requestAnimationFrame(() => this.paint());
      }
    } catch (error) {
      if (!this.stopped) throw error;
    } finally {
      cancelAnimationFrame(this.frame);
      this.paint();
      this.turn.finish();
    }
  }

  take(chunk) {
    if (chunk.usage) this.meter.seeUsage(chunk.usage);
    const choice = chunk.choices?.[0];
    if (!choice) return;
    this.finish = choice.finish_reason ?? this.finish;
    const delta = choice.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning ?? "";
    const text = delta.content ?? "";
    if (text || thought || delta.tool_calls?.length) this.meter.seeToken();
    this.text += text;
    this.unpainted.text += text;
    this.reasoning += thought;
    this.unpainted.reasoning += thought;
    delta.tool_calls?.forEach((part) => this.addCall(part));
  }

  addCall(part) {
    const call = (this.calls[part.index ?? 0] ??= { id: "", name: "", arguments: "" });
    if (part.id) call.id = part.id;
    call.name += part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }

  paint() {
    this.frame = 0;
    const { text, reasoning } = this.unpainted;
    this.unpainted = { text: "", reasoning: "" };
    if (reasoning) this.turn.addReasoning(reasoning);
    if (text) this.turn.addText(text);
    if (this.calls.length) this.turn.showCalls(this.calls);
    this.onPaint(this.meter.line());
  }

  // As a message of the conversation.
  message() {
    const message = { role: "assistant", content: this.text };
    if (this.calls.length) {
      message.tool_calls = this.calls.map(({ id, name, arguments: text }) => ({
        id,
        type: "function",
        function: { name, arguments: text },
      }));
    }
    return message;
  }
}

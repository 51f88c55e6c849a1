// Turns model output into DOM nodes. Text only ever enters through text nodes, so nothing that
// a model writes can become markup.

export function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const FENCE = "```";

// Text that grows. Lines between ``` fences become code blocks. Each character is looked at
// once, so long answers stay smooth.
export class TextView {
  constructor(node) {
    this.node = node;
    this.held = "";
    this.lineStart = true;
    this.inCode = false;
    this.target = null;
  }

  append(text) {
    this.held += text;
    while (this.held) {
      if (this.lineStart) {
        // A fence may still be on its way.
        if (this.held.length < FENCE.length && FENCE.startsWith(this.held)) return;
        if (this.held.startsWith(FENCE)) {
          const end = this.held.indexOf("\n");
          if (end < 0) return;
          this.inCode = !this.inCode;
          this.target = null;
          this.held = this.held.slice(end + 1);
          continue;
        }
      }
      const end = this.held.indexOf("\n") + 1 || this.held.length;
      this.lineStart = this.held[end - 1] === "\n";
      this.write(this.held.slice(0, end));
      this.held = this.held.slice(end);
    }
  }

  // Shows what was held back, except a closing fence.
  finish() {
    if (this.held && !(this.inCode && this.held.trim() === FENCE)) this.write(this.held);
    this.held = "";
  }

  write(text) {
    if (!this.target) {
      this.target = document.createTextNode("");
      const place = this.inCode ? this.node.appendChild(element("pre")) : this.node;
      if (this.inCode) place.tabIndex = 0;
      place.append(this.target);
    }
    this.target.appendData(text);
  }
}

export class Turn {
  constructor(log, role) {
    this.role = role;
    this.root = element("article", `turn ${role}`);
    this.root.append(element("div", "who", role === "user" ? "You" : "Model"));
    this.body = element("div", "text");
    this.root.append(this.body);
    this.view = new TextView(this.body);
    log.append(this.root);
  }

  addText(text) {
    this.view.append(text);
  }

  addReasoning(text) {
    if (!this.reasoning) {
      this.details = element("details");
      this.details.open = true;
      this.summary = element("summary", "", "Reasoning …");
      const body = element("div", "text reasoning");
      this.details.append(this.summary, body);
      this.root.insertBefore(this.details, this.body);
      this.reasoning = new TextView(body);
    }
    this.reasoning.append(text);
  }

  // The calls so far: [{id, name, arguments}]; called again as they grow.
  showCalls(calls) {
    this.calls ??= [];
    calls.forEach((call, i) => {
      if (!this.calls[i]) {
        const box = element("div", "tool");
        const name = element("div", "name");
        const parameters = element("pre");
        parameters.tabIndex = 0;
        box.append(name, parameters);
        this.root.append(box);
        this.calls[i] = { box, name, parameters };
      }
      this.calls[i].name.textContent = `Calls ${call.name}`;
      this.calls[i].parameters.textContent = call.arguments;
    });
  }

  // Asks for the results of the calls; answer([{id, result}]) is called once.
  askForResults(calls, answer) {
    const form = element("form", "results");
    const fields = calls.map((call, i) => {
      const field = element("input");
      field.required = true;
      field.placeholder = "Result to give back to the model";
      field.setAttribute("aria-label", `Result of ${call.name}`);
      field.setAttribute("form", (form.id = `results-${call.id}`));
      this.calls[i].box.append(field);
      return field;
    });
    const button = element("button", "", calls.length > 1 ? "Send results" : "Send result");
    form.append(button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.remove();
      fields.forEach((field) => (field.readOnly = true));
      answer(calls.map((call, i) => ({ id: call.id, result: fields[i].value })));
    });
    this.root.append(form);
    fields[0]?.focus();
  }

  finish() {
    this.view.finish();
    if (this.reasoning) {
      this.reasoning.finish();
      this.summary.textContent = "Reasoning";
    }
  }

  showNote(text) {
    this.root.append(element("p", "note", text));
  }

  showError(error) {
    const box = element("div", "error");
    box.setAttribute("role", "alert");
    box.append(element("p", "", error.message));
    const about = [
      error.status ? `HTTP ${error.status}` : "",
      error.code ?? "",
      error.requestId ? `request id ${error.requestId}` : "",
    ].filter(Boolean);
    if (about.length) box.append(element("p", "about", about.join(" · ")));
    this.root.append(box);
  }
}

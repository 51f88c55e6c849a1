// Turns model output into DOM nodes. Text only ever enters through textContent, so nothing
// that a model writes can become markup.

export function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Plain text, with ``` fences shown as code blocks.
function fillText(node, text) {
  node.replaceChildren();
  text.split(/^```[^\n]*\n?/m).forEach((part, i) => {
    if (part) node.append(i % 2 ? element("pre", "", part.replace(/\n$/, "")) : document.createTextNode(part));
  });
}

export class Turn {
  constructor(log, role) {
    this.root = element("article", `turn ${role}`);
    this.root.append(element("div", "who", role === "user" ? "You" : "Model"));
    this.body = element("div", "text");
    this.root.append(this.body);
    log.append(this.root);
    this.text = "";
  }

  setText(text) {
    this.text = text;
    // Most answers hold no fence: appending to one text node keeps long streams cheap.
    if (text.includes("```")) fillText(this.body, text);
    else if (this.body.childNodes.length === 1 && this.body.firstChild.nodeType === Node.TEXT_NODE)
      this.body.firstChild.data = text;
    else this.body.replaceChildren(document.createTextNode(text));
  }

  setReasoning(text) {
    if (!this.reasoning) {
      const details = element("details");
      details.open = true;
      details.append(element("summary", "", "Thinking"));
      this.reasoning = element("div", "text reasoning");
      details.append(this.reasoning);
      this.root.insertBefore(details, this.body);
    }
    this.reasoning.textContent = text;
  }

  // calls: [{id, name, arguments}]; answer(results) is called once every result was given.
  showTools(calls, answer) {
    this.tools?.remove();
    this.tools = element("div");
    const fields = calls.map((call) => {
      const box = element("div", "tool");
      box.append(element("span", "name", call.name), element("pre", "", call.arguments));
      const field = element("input");
      field.placeholder = "Result to give back to the model";
      field.setAttribute("aria-label", `Result of ${call.name}`);
      if (answer) box.append(field);
      this.tools.append(box);
      return field;
    });
    if (answer) {
      const button = element("button", "", "Send result");
      button.type = "button";
      button.addEventListener("click", () => {
        button.remove();
        fields.forEach((field) => (field.disabled = true));
        answer(calls.map((call, i) => ({ id: call.id, result: fields[i].value })));
      });
      this.tools.append(button);
    }
    this.root.append(this.tools);
  }

  setError(message) {
    this.root.append(element("p", "error", message));
  }
}

"""A conversation of items as chat messages, and the way back for errors.

The chat reader checks what only it can check (bounds of parameters, images, schemas); what it
says of its own fields is told to the caller of the Responses API in that API's names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import InvalidRequest
from gateway.protocol.response_items import Item

# Chat's name of a field, where it differs.
RENAMED = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
_TOOL = re.compile(r"(tools\[\d+\])\.function(?!\w)")
_MESSAGE = re.compile(r"messages\[(\d+)\]")


@dataclass(slots=True)
class Conversation:
    """Chat messages with where each came from.

    Attributes:
        sources: per message the name of the field behind it, such as ``input[2]``.
        head: number of leading messages that are instructions and are never dropped.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    head: int = 0

    def add(self, message: dict[str, Any], source: str) -> None:
        """Append a message."""
        self.messages.append(message)
        self.sources.append(source)

    def without_oldest(self) -> Conversation | None:
        """A shorter conversation for ``truncation: auto``, or None when nothing may go.

        A quarter of the messages goes at a time, so that few prompts are rendered until one
        fits. The last message stays, and no result stays without its call.
        """
        most = len(self.messages) - self.head - 1
        if most < 1:
            return None
        cut = self.head + max(1, most // 4)
        while cut < len(self.messages) - 1 and self.messages[cut]["role"] == "tool":
            cut += 1
        if self.messages[cut]["role"] == "tool":
            return None
        return Conversation(
            self.messages[: self.head] + self.messages[cut:],
            self.sources[: self.head] + self.sources[cut:],
            self.head,
        )

    def in_own_words(self, error: InvalidRequest) -> InvalidRequest:
        """An error of the chat reader, naming the fields of the Responses API."""
        return InvalidRequest(
            self._renamed(error.message),
            param=self._renamed(error.param) if error.param is not None else None,
            code=error.code,
        )

    def _renamed(self, text: str) -> str:
        def source(match: re.Match[str]) -> str:
            index = int(match[1])
            return self.sources[index] if index < len(self.sources) else "input"

        text = _MESSAGE.sub(source, text).replace(".image_url.url", ".image_url")
        for chat, own in RENAMED.items():
            text = re.sub(rf"(?<![\w.]){re.escape(chat)}(?!\w)", own, text)
        text = _TOOL.sub(r"\1", text)
        return re.sub(r"(?<=')messages(?=')|^messages$", "input", text)


def converse(
    instructions: str | None, earlier: Sequence[Item], items: Sequence[Item]
) -> Conversation:
    """The whole conversation: instructions, then what went before, then this request's input.

    Raises InvalidRequest for the output of a call that was never made.
    """
    found = Conversation()
    if instructions:
        found.add({"role": "system", "content": instructions}, "instructions")
    calls: set[str] = set()
    for item in earlier:
        add_item(found, item, "previous_response_id", calls)
    for index, item in enumerate(items):
        add_item(found, item, f"input[{index}]", calls)
    merge_instructions(found)
    return found


def add_item(found: Conversation, item: Item, source: str, calls: set[str]) -> None:
    """Append an item as a message, or to the assistant's message that it is part of."""
    kind = item["type"]
    if kind == "function_call_output":
        if item["call_id"] not in calls:
            raise InvalidRequest(
                f"No tool call found for function call output with call_id {item['call_id']}.",
                param=source,
            )
        content = item["output"]
        if type(content) is list:
            content = "\n".join(part["text"] for part in content)
        message = {"role": "tool", "tool_call_id": item["call_id"], "content": content}
        found.add(message, source)
    elif kind == "message" and item["role"] != "assistant":
        found.add({"role": item["role"], "content": chat_content(item["content"])}, source)
    else:
        add_to_assistant(found, item, source, calls)


def add_to_assistant(found: Conversation, item: Item, source: str, calls: set[str]) -> None:
    """Add reasoning, text or a call to the assistant's turn; thinking begins a new one."""
    kind = item["type"]
    last = found.messages[-1] if found.messages else {}
    is_open = last.get("role") == "assistant" and kind != "reasoning"
    if kind == "message" and (last.get("content") or last.get("tool_calls")):
        is_open = False
    if not is_open:
        last = {"role": "assistant", "content": ""}
        found.add(last, source)
    if kind == "reasoning":
        thoughts = item.get("content") or item["summary"]
        last["reasoning_content"] = "\n".join(part["text"] for part in thoughts)
    elif kind == "message":
        spoken = (part["text"] if "text" in part else part["refusal"] for part in item["content"])
        last["content"] = "\n".join(spoken)
    else:
        calls.add(item["call_id"])
        function = {"name": item["name"], "arguments": item["arguments"]}
        last.setdefault("tool_calls", []).append(
            {"id": item["call_id"], "type": "function", "function": function}
        )


def chat_content(parts: list[Item]) -> str | list[dict[str, Any]]:
    """Content parts as chat takes them; a single text as a string."""
    if len(parts) == 1 and parts[0]["type"] == "input_text":
        return str(parts[0]["text"])
    return [
        {"type": "text", "text": part["text"]}
        if part["type"] == "input_text"
        else {
            "type": "image_url",
            "image_url": {"url": part["image_url"], "detail": part["detail"]},
        }
        for part in parts
    ]


def merge_instructions(found: Conversation) -> None:
    """Make one system message of those at the start: many chat templates take no second."""
    head = 0
    texts: list[str] = []
    for message in found.messages:
        if message["role"] not in ("system", "developer") or type(message["content"]) is not str:
            break
        texts.append(message["content"])
        head += 1
    if head > 1 and head < len(found.messages):
        found.messages[:head] = [{"role": "system", "content": "\n\n".join(texts)}]
        found.sources[:head] = found.sources[:1]
    found.head = min(head, 1)

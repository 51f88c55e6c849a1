"""Anthropic's turns as chat messages, and the way back from a chat field to the caller's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from engine.base import RequestRejected
from gateway.errors import InvalidRequest
from gateway.protocol.anthropic_blocks import Block, Turn
from gateway.protocol.values import missing, wrong_value

_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.content(?:\[(\d+)\])?)?")
_FIELDS = (
    (re.compile(r"max_completion_tokens"), "max_tokens"),
    (re.compile(r"stop\b(?!_)"), "stop_sequences"),
    (re.compile(r"response_format\.json_schema"), "output_config.format"),
    (re.compile(r"response_format"), "output_config.format"),
    (re.compile(r"(tools\[\d+\])\.function\.parameters"), r"\1.input_schema"),
    (re.compile(r"(tools\[\d+\])\.function"), r"\1"),
    (re.compile(r"tool_choice\.function"), "tool_choice"),
    (re.compile(r"parallel_tool_calls"), "tool_choice.disable_parallel_tool_use"),
    (re.compile(r"reasoning_effort"), "output_config.effort"),
)


@dataclass(slots=True)
class Conversation:
    """Chat messages, each with where the caller wrote it and, if in parts, its parts."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    origins: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, message: dict[str, Any], path: str, parts: Iterable[Block] = ()) -> None:
        """Append a message that came from ``path``."""
        self.messages.append(message)
        self.origins.append((path, [block.path for block in parts]))

    def own_field(self, param: str) -> str:
        """The caller's name for a field of the chat request."""
        found = _MESSAGE.match(param)
        if found is not None and int(found[1]) < len(self.origins):
            path, parts = self.origins[int(found[1])]
            part = int(found[2]) if found[2] else None
            return parts[part] if part is not None and part < len(parts) else path
        for pattern, name in _FIELDS:
            if pattern.match(param):
                return pattern.sub(name, param, count=1)
        return param

    def in_callers_terms(self, error: InvalidRequest | RequestRejected) -> InvalidRequest:
        """The same error, naming the caller's field instead of the chat request's."""
        message = str(error)
        param = error.param
        if param is not None:
            own = self.own_field(param)
            message = message.replace(f"'{param}'", f"'{own}'")
            param = own
        if error.code == "context_length_exceeded":
            # Clients of Anthropic's API recognise these words, and shorten the conversation.
            message = f"prompt is too long: {message}"
        return InvalidRequest(message, param=param, code=error.code)


def to_chat(system: list[Block] | None, turns: list[Turn]) -> Conversation:
    """The chat messages for a conversation.

    Raises InvalidRequest where tool uses and tool results do not pair up, as Anthropic does.
    An empty assistant's turn at the end asks for nothing and is left out.
    """
    conversation = Conversation()
    if system:
        conversation.add({"role": "system", "content": join(system)}, "system")
    asked: dict[str, str] = {}
    for turn in merged(turns):
        results = [block for block in turn.blocks if block.kind == "tool_result"]
        check_results(turn, results, asked)
        asked = {}
        if turn.role == "assistant":
            if turn.blocks:
                add_assistant(conversation, turn)
            elif turn.path != turns[-1].path:
                missing(f"{turn.path}.content")
            asked = {b.fields["id"]: b.path for b in turn.blocks if b.kind == "tool_use"}
            continue
        for block in results:
            add_result(conversation, block)
        rest = [block for block in turn.blocks if block.kind != "tool_result"]
        if rest or not results:
            add_content(conversation, turn, rest)
    if asked:
        refuse_unanswered(asked)
    return conversation


def merged(turns: list[Turn]) -> list[Turn]:
    """Turns with consecutive ones of one speaker put together: templates want them to take
    turns, and Anthropic does the same."""
    found: list[Turn] = []
    for turn in turns:
        if found and found[-1].role == turn.role:
            last = found[-1]
            found[-1] = Turn(last.role, last.path, [*last.blocks, *turn.blocks])
        else:
            found.append(turn)
    return found


def check_results(turn: Turn, results: list[Block], asked: dict[str, str]) -> None:
    """Raise unless exactly the tool uses of the turn before are answered, and first of all."""
    if turn.role == "system" and asked:
        refuse_unanswered(asked)
    if results and any(b.kind != "tool_result" for b in turn.blocks[: len(results)]):
        wrong_value(results[-1].path, "tool results must come before other content blocks")
    open_uses = dict(asked)
    for block in results:
        use_id = block.fields["tool_use_id"]
        if open_uses.pop(use_id, None) is None:
            wrong_value(
                f"{block.path}.tool_use_id",
                f"there is no open tool use '{use_id[:64]}' in the message before",
            )
    if open_uses:
        refuse_unanswered(open_uses)


def refuse_unanswered(asked: dict[str, str]) -> None:
    """Raise for tool uses without results."""
    use_id, path = next(iter(asked.items()))
    wrong_value(path, f"the tool use '{use_id[:64]}' has no tool result in the next message")


def add_assistant(conversation: Conversation, turn: Turn) -> None:
    """Append an assistant's turn: thinking, text and calls."""
    texts = [block for block in turn.blocks if block.kind == "text"]
    message: dict[str, Any] = {"role": "assistant", "content": join(texts)}
    thoughts = [b.fields["thinking"] for b in turn.blocks if b.kind == "thinking"]
    if any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    calls = [block.fields for block in turn.blocks if block.kind == "tool_use"]
    if calls:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": orjson.dumps(call["input"]).decode(),
                },
            }
            for call in calls
        ]
    conversation.add(message, f"{turn.path}.content")


def add_result(conversation: Conversation, block: Block) -> None:
    """Append a tool's result. Chat messages have no mark for errors, so the text says it."""
    parts: list[Block] = block.fields.get("content", [])
    if block.fields.get("is_error") and not join(parts).lower().startswith("error"):
        parts = [Block("text", block.path, {"text": "Error:"}), *parts]
    content = content_of(parts)
    use_id = block.fields["tool_use_id"]
    message = {"role": "tool", "tool_call_id": use_id, "content": content}
    conversation.add(message, f"{block.path}.content", parts)


def add_content(conversation: Conversation, turn: Turn, blocks: list[Block]) -> None:
    """Append what a user or the system says."""
    path = f"{turn.path}.content"
    if not blocks:
        missing(path)
    conversation.add({"role": turn.role, "content": content_of(blocks)}, path, blocks)


def content_of(blocks: list[Block]) -> str | list[dict[str, Any]]:
    """``content`` of a chat message: a string, or parts when there are images."""
    if all(block.kind == "text" for block in blocks):
        return join(blocks)
    return [part_of(block) for block in blocks]


def part_of(block: Block) -> dict[str, Any]:
    """A text or image block as a content part of chat completions."""
    if block.kind == "text":
        return {"type": "text", "text": block.fields["text"]}
    source = block.fields["source"]
    if source["type"] == "url":
        if "url" not in source:
            missing(f"{block.path}.source.url")
        return {"type": "image_url", "image_url": {"url": source["url"]}}
    for name in ("media_type", "data"):
        if name not in source:
            missing(f"{block.path}.source.{name}")
    url = f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "image_url", "image_url": {"url": url}}


def join(blocks: Iterable[Block]) -> str:
    """The text of all text blocks, joined by line breaks as vLLM joins parts."""
    return "\n".join(block.fields["text"] for block in blocks if block.kind == "text")

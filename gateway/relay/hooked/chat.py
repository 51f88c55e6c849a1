"""Chat and text completions through hooks, in one piece and chunk by chunk.

Source of the shapes: ``openai.types.chat.ChatCompletion``, ``ChatCompletionChunk`` and
``openai.types.Completion``. ``reasoning_content`` and ``reasoning`` are two names of the same.
"""

from __future__ import annotations

from gateway.hooks.answer import CONTENT, REASONING, HookedAnswer, Piece, Text
from gateway.relay.errors import NotUnderstood
from gateway.relay.hooked.texts import Json, Texts, holds_no_text, without_text

HOLDERS = ("message", "delta")
REASONS = ("reasoning_content", "reasoning")
# What else there is may spell the texts in another way, and is left out.
CHOICE = frozenset({"index", "finish_reason", "stop_reason", "matched_stop", "text", *HOLDERS})
MESSAGE = frozenset({"role", "name", "content", "refusal", "tool_calls", "function_call", *REASONS})
REFUSAL: Text = ("content", "refusal")
FUNCTION: Text = ("arguments", "function_call")


class ChatRewriter:
    """Of one answer. See ``gateway.relay.hooked.stream.Rewriter``."""

    def __init__(self, answer: HookedAnswer) -> None:
        self._answer = answer
        self._head: Json = {}
        self._reasons = [REASONS[0]]
        self._is_text = False
        self._heard: dict[int, None] = {}

    def whole(self, document: Json) -> None:
        for choice in choices_of(document):
            texts = Texts(self._answer, self._index(choice))
            self._choice(choice, texts)
            texts.stop()
            self._name_twice(choice)

    def event(self, document: Json) -> list[Json]:
        self._head = {k: v for k, v in document.items() if k not in ("choices", "usage")}
        choices = choices_of(document)
        shown: list[Json] = []
        kept: list[Json] = []
        for choice in choices:
            index = self._index(choice)
            texts = Texts(self._answer, index)
            said = self._choice(choice, texts)
            self._name_twice(choice)
            shown += [self._chunk(index, piece) for piece in texts.before]
            if not said or not is_empty(choice):
                kept.append(choice)
        if kept or not choices or document.get("usage"):
            shown.append(document | {"choices": kept} if choices else document)
        return shown

    def end(self) -> list[Json]:
        return [
            self._chunk(index, piece)
            for index in self._heard
            for piece in self._answer.interrupt(index)
        ]

    def _index(self, choice: Json) -> int:
        index = choice.get("index", 0)
        if type(index) is not int or not 0 <= index < self._answer.choices:
            raise NotUnderstood("a choice that nobody asked for")
        self._heard[index] = None
        return index

    def _choice(self, choice: Json, texts: Texts) -> bool:
        """Rewrite what a choice holds; whether it held any text."""
        said = False
        for name in HOLDERS:
            if isinstance(message := choice.get(name), dict):
                said |= self._message(message, texts)
            elif message is not None:
                del choice[name]
        if isinstance(text := choice.get("text"), str):
            self._is_text = True
            said |= bool(text)
            texts.put(CONTENT, choice, "text")
        elif text is not None:
            del choice["text"]
        for name in [*choice]:
            if name == "logprobs":
                choice[name] = None
            elif name not in CHOICE:
                del choice[name]
        if isinstance(reason := choice.get("finish_reason"), str):
            texts.finish(reason)
        return said

    def _message(self, message: Json, texts: Texts) -> bool:
        """Rewrite a message, or a delta of one."""
        said = False
        if named := [name for name in REASONS if message.get(name)]:
            first = message[named[0]]
            # Some servers give both names, for clients that know one of them.
            self._reasons = [name for name in named if message[name] == first]
            if isinstance(first, str):
                said = True
                texts.put(REASONING, message, named[0])
            for name in named[1:] if isinstance(first, str) else named:
                del message[name]
        said |= self._content(message, texts)
        said |= put(texts, REFUSAL, message, "refusal")
        said |= self._calls(message, texts)
        without_text(message, MESSAGE)
        return said

    def _content(self, message: Json, texts: Texts) -> bool:
        content = message.get("content")
        if not isinstance(content, list):
            return put(texts, CONTENT, message, "content")
        parts = [p for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)]
        message["content"] = parts
        return sum(put(texts, CONTENT, part, "text") for part in parts) > 0

    def _calls(self, message: Json, texts: Texts) -> bool:
        said = False
        for name, wanted in (("tool_calls", list), ("function_call", dict)):
            if not isinstance(message.get(name), wanted | None):
                del message[name]
        for position, call in enumerate(message.get("tool_calls") or ()):
            if not isinstance(call, dict):
                raise NotUnderstood("a tool call that is not a JSON object")
            index = call.get("index")
            which: Text = ("arguments", index if type(index) is int else position)
            texts.stop(unless=which)
            without_text(call, {"id", "type", "function", "custom"})
            for kind, name in (("function", "arguments"), ("custom", "input")):
                held = call.get(kind)
                if isinstance(held, dict):
                    said |= put(texts, which, held, name)
                    without_text(held, {"name", name})
                elif held is not None:
                    del call[kind]
        if called := message.get("function_call"):
            said |= put(texts, FUNCTION, called, "arguments")
            without_text(called, {"name", "arguments"})
        return said

    def _name_twice(self, choice: Json) -> None:
        """Give the reasoning its second name again."""
        for holder in HOLDERS:
            message = choice.get(holder)
            if isinstance(message, dict) and self._reasons[0] in message:
                for name in self._reasons[1:]:
                    message[name] = message[self._reasons[0]]

    def _chunk(self, index: int, piece: Piece) -> Json:
        """An event for what was held back."""
        text, new = piece
        choice: Json = {"index": index}
        choice |= {"text": new} if self._is_text else {"delta": self._delta(text, new)}
        return {**self._head, "choices": [{**choice, "logprobs": None, "finish_reason": None}]}

    def _delta(self, text: Text, new: str) -> Json:
        if text[0] == "reasoning":
            return dict.fromkeys(self._reasons, new)
        if text == FUNCTION:
            return {"function_call": {"arguments": new}}
        if text[0] == "arguments":
            return {"tool_calls": [{"index": text[1], "function": {"arguments": new}}]}
        return {"refusal" if text == REFUSAL else "content": new}


def put(texts: Texts, text: Text, holder: Json, name: str) -> bool:
    """Rewrite a text that may not be there; whether it is. An empty one ends no other."""
    value = holder.get(name)
    if not isinstance(value, str):
        if not holds_no_text(value):
            del holder[name]
        return False
    if value:
        texts.put(text, holder, name)
    return bool(value)


def choices_of(document: Json) -> list[Json]:
    """Raises NotUnderstood."""
    choices = document.get("choices")
    found = choices if isinstance(choices, list) else []
    if not all(isinstance(choice, dict) for choice in found):
        raise NotUnderstood("a choice that is not a JSON object")
    return found


def is_empty(choice: Json) -> bool:
    """Whether an event's choice brings nothing, now that its text is held back."""
    if choice.get("finish_reason") is not None or choice.get("text"):
        return False
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return "delta" not in choice
    calls = delta.get("tool_calls") or ()
    if any("id" in call or tells(call) for call in calls) or tells(delta):
        return False
    return not any(v for k, v in delta.items() if k not in ("tool_calls", "function_call"))


def tells(holder: Json) -> bool:
    """Whether a call tells which function is called, or with what."""
    kinds = [holder.get(kind) for kind in ("function", "custom", "function_call")]
    return any(
        held.get(name)
        for held in kinds
        if isinstance(held, dict)
        for name in ("name", "arguments", "input")
    )

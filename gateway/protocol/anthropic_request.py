"""The body of ``POST /v1/messages`` as a request for a chat turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from engine.base import RequestRejected
from gateway.errors import InvalidRequest
from gateway.protocol.anthropic_chat import Conversation, to_chat
from gateway.protocol.anthropic_parameters import COUNT_TOKENS, MESSAGES
from gateway.protocol.chat_request import ChatRequest, read_chat_request
from gateway.protocol.parameters import read_fields
from gateway.protocol.values import wrong_value

# Fields that mean the same in both protocols, by their names in chat completions.
SAME_FIELDS = {
    "model": "model",
    "stream": "stream",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop",
    "cache_salt": "cache_salt",
}
# The names under which the templates of Qwen3 and of Granite and DeepSeek know the switch.
THINKING_VARIABLES = ("enable_thinking", "thinking")

ThinkingDisplay = Literal["shown", "omitted", "dropped"]


@dataclass(frozen=True, slots=True)
class MessageRequest:
    """A checked request.

    Attributes:
        chat: what is asked of the model.
        thinking: ``omitted`` shows that there was thinking, without its text.
        conversation: leads from fields of ``chat`` back to the caller's.
    """

    chat: ChatRequest
    thinking: ThinkingDisplay
    conversation: Conversation

    @contextmanager
    def naming_own_fields(self) -> Iterator[None]:
        """Errors raised inside name the caller's fields instead of those of ``chat``."""
        try:
            yield
        except (InvalidRequest, RequestRejected) as error:
            raise self.conversation.in_callers_terms(error) from None


def read_message_request(
    document: dict[str, Any], *, strict: bool = False, counting: bool = False
) -> MessageRequest:
    """Check a decoded body, of ``count_tokens`` when ``counting``.

    Raises InvalidRequest naming the field at fault.
    """
    fields = read_fields(document, COUNT_TOKENS if counting else MESSAGES, strict=strict)
    conversation = to_chat(fields.get("system"), fields["messages"])
    chat = {name: fields[key] for key, name in SAME_FIELDS.items() if key in fields}
    chat["messages"] = conversation.messages
    chat |= prefill(conversation)
    chat |= tools_of(fields)
    chat |= output_of(fields)
    effort = fields.get("output_config", {}).get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    thinking = fields.get("thinking", {"type": "disabled"})
    budget = thinking.get("budget_tokens")
    if budget is not None and budget >= fields.get("max_tokens", budget + 1):
        wrong_value("thinking.budget_tokens", "it must be less than 'max_tokens'")
    on = thinking["type"] != "disabled"
    given = fields.get("chat_template_kwargs", {})
    chat["chat_template_kwargs"] = dict.fromkeys(THINKING_VARIABLES, on) | given
    try:
        request = read_chat_request(chat)
    except InvalidRequest as error:
        raise conversation.in_callers_terms(error) from None
    omitted = thinking.get("display") == "omitted"
    return MessageRequest(
        chat=request,
        thinking="dropped" if not on else "omitted" if omitted else "shown",
        conversation=conversation,
    )


def prefill(conversation: Conversation) -> dict[str, Any]:
    """Fields by which the model goes on with a last message of the assistant."""
    if not conversation.messages or conversation.messages[-1]["role"] != "assistant":
        return {}
    text = conversation.messages[-1]["content"]
    path = conversation.origins[-1][0]
    if not text:
        wrong_value(path, "the last message of the assistant must have text to go on with")
    if text != text.rstrip():
        wrong_value(path, "the last message of the assistant cannot end with trailing whitespace")
    return {"continue_final_message": True, "add_generation_prompt": False}


def tools_of(fields: dict[str, Any]) -> dict[str, Any]:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls`` of the chat request."""
    tools = fields.get("tools")
    choice = fields.get("tool_choice")
    if not tools:
        if choice is not None and choice["type"] != "none":
            wrong_value("tool_choice", "it is only allowed when 'tools' are given")
        return {}
    names = [tool["name"] for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            wrong_value(f"tools[{index}].name", "tool names must be unique")
    chat: dict[str, Any] = {"tools": [tool_of(tool) for tool in tools]}
    if choice is None:
        return chat
    kind = choice["type"]
    if kind == "tool":
        if choice["name"] not in names:
            wrong_value("tool_choice.name", "it is not among 'tools'")
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    else:
        chat["tool_choice"] = "required" if kind == "any" else kind
    if "disable_parallel_tool_use" in choice:
        chat["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    return chat


def tool_of(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool in the form of chat completions."""
    function = {key: tool[key] for key in ("name", "description", "strict") if key in tool}
    return {"type": "function", "function": {**function, "parameters": tool["input_schema"]}}


def output_of(fields: dict[str, Any]) -> dict[str, Any]:
    """``response_format`` of the chat request; Anthropic's formats are always strict."""
    config = fields.get("output_config", {})
    form = config.get("format", fields.get("output_format"))
    if "format" in config and "output_format" in fields and form != fields["output_format"]:
        wrong_value("output_format", "it differs from 'output_config.format'; send only one")
    if form is None:
        return {}
    wrapper = {"name": "output", "schema": form["schema"], "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": wrapper}}

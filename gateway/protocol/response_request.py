"""The body of ``POST /v1/responses`` as a typed value, and the chat request it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequest
from gateway.protocol.chat_request import ChatRequest, read_chat_request
from gateway.protocol.parameters import read_fields
from gateway.protocol.response_chat import Conversation, converse
from gateway.protocol.response_items import Item
from gateway.protocol.response_parameters import AS_IN_CHAT, LOGPROBS_INCLUDED, RESPONSES
from gateway.protocol.response_tools import chat_format, chat_tools
from gateway.protocol.values import wrong_value

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """A checked request; what depends on the model or on stored responses is checked later.

    Attributes:
        fields: the fields that were given, by their names here.
        input: the items of this request; references are not followed yet.
        logprobs: whether log-probabilities are shown.
    """

    model: str | None
    fields: Json
    input: list[Item]
    stream: bool
    background: bool
    store: bool
    logprobs: bool
    previous: str | None
    truncates: bool

    @property
    def references(self) -> set[str]:
        """Ids of items that the input only names."""
        return {item["id"] for item in self.input if item["type"] == "item_reference"}


def read_response_request(document: Json, *, strict: bool = False) -> ResponseRequest:
    """Check a decoded body. Raises InvalidRequest naming the field at fault."""
    fields = read_fields(document, RESPONSES, strict=strict)
    background = fields.get("background", False)
    store = fields.get("store", True)
    if background and not store:
        wrong_value("background", "it needs 'store' to be true")
    if fields.get("stream_options") is not None and not fields.get("stream"):
        wrong_value("stream_options", "it is only allowed when 'stream' is true")
    return ResponseRequest(
        model=fields.get("model"),
        fields=fields,
        input=fields["input"],
        stream=fields.get("stream", False),
        background=background,
        store=store,
        logprobs=LOGPROBS_INCLUDED in fields.get("include", ()),
        previous=fields.get("previous_response_id"),
        truncates=fields.get("truncation") == "auto",
    )


def conversation_of(
    request: ResponseRequest, earlier: Sequence[Item], items: Sequence[Item]
) -> Conversation:
    """The messages of a request whose references have been replaced by ``items``."""
    return converse(request.fields.get("instructions"), earlier, items)


def chat_request_of(request: ResponseRequest, conversation: Conversation) -> ChatRequest:
    """The request as the chat machinery takes it.

    Raises InvalidRequest in the names of this API.
    """
    try:
        return read_chat_request(chat_document(request, conversation))
    except InvalidRequest as error:
        raise conversation.in_own_words(error) from None


def chat_document(request: ResponseRequest, conversation: Conversation) -> Json:
    """The body of an equal request for a chat completion."""
    fields = request.fields
    document: Json = {"messages": conversation.messages, "stream": request.stream}
    for name in ("model", "temperature", "top_p", *AS_IN_CHAT):
        if name in fields:
            document[name] = fields[name]
    if "max_output_tokens" in fields:
        document["max_completion_tokens"] = fields["max_output_tokens"]
    if request.logprobs:
        document["logprobs"] = True
        document["top_logprobs"] = fields.get("top_logprobs", 0)
    text = fields.get("text", {})
    if "format" in text and (form := chat_format(text["format"])) is not None:
        document["response_format"] = form
    if "verbosity" in text:
        document["verbosity"] = text["verbosity"]
    effort = fields.get("reasoning", {}).get("effort")
    if effort is not None:
        document["reasoning_effort"] = effort
    document |= chat_tools(fields.get("tools", []), fields.get("tool_choice"))
    if "tools" in document and "parallel_tool_calls" in fields:
        document["parallel_tool_calls"] = fields["parallel_tool_calls"]
    return document


def response_head(request: ResponseRequest, response_id: str, created: int) -> Json:
    """The response object as far as it is known before the model has said anything."""
    fields = request.fields
    text = fields.get("text", {})
    reasoning = fields.get("reasoning", {})
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "queued" if request.background else "in_progress",
        "background": request.background,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": fields.get("instructions"),
        "max_output_tokens": fields.get("max_output_tokens"),
        "max_tool_calls": None,
        "metadata": fields.get("metadata", {}),
        "model": request.model,
        "output": [],
        "parallel_tool_calls": fields.get("parallel_tool_calls", True),
        "previous_response_id": request.previous,
        "prompt_cache_key": None,
        "reasoning": {
            "effort": reasoning.get("effort"),
            "summary": reasoning.get("summary", reasoning.get("generate_summary")),
        },
        "safety_identifier": None,
        "service_tier": "default",
        "store": request.store,
        "temperature": fields.get("temperature"),
        "text": {
            "format": text.get("format", {"type": "text"}),
            "verbosity": text.get("verbosity", "medium"),
        },
        "tool_choice": fields.get("tool_choice", "auto"),
        "tools": [shown_tool(tool) for tool in fields.get("tools", [])],
        "top_logprobs": fields.get("top_logprobs", 0),
        "top_p": fields.get("top_p"),
        "truncation": fields.get("truncation", "disabled"),
        "usage": None,
        "user": None,
    }


def shown_tool(tool: Json) -> Json:
    """A function with every field that OpenAI shows."""
    return {"description": None, "parameters": None, "strict": None, **tool}

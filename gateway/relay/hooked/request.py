"""A request for another server, as hooks see it and as they send it on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import orjson

from gateway.chat.caller import Caller
from gateway.errors import InvalidRequest
from gateway.hooks.answer import HookedAnswer
from gateway.hooks.api import About, RequestView
from gateway.hooks.run import Hooks, about_of, asks
from gateway.protocol.values import wrong_type
from gateway.relay.body import with_fields
from gateway.relay.hooked import chat_view, message_view, response_view
from gateway.relay.hooked.conversation import Group, Json, returned
from gateway.relay.hooked.stream import HookedBytes
from gateway.relay.outgoing import Incoming

MOST_CHOICES = 1 << 16
LIMITS = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True)
class HookedRequest:
    """One request, once hooks have seen it.

    Attributes:
        incoming: what servers are to get.
    """

    incoming: Incoming
    _hooks: Hooks
    _about: About

    def answer(self) -> HookedBytes | None:
        """What an attempt to answer goes through; None where no hook wants it. Raises
        InvalidRequest for a request whose answer would spell rewritten texts in another way."""
        incoming = self.incoming
        choices = choices_of(incoming)
        answer: HookedAnswer = self._hooks.answer(self._about, choices, spelled_by(incoming))
        return HookedBytes(incoming.api, answer) if answer.matters else None


async def hooked_request(hooks: Hooks, incoming: Incoming, caller: Caller) -> HookedRequest:
    """Have hooks see a request. Raises InvalidRequest or NotPermitted for a refusal, and
    HookFailed."""
    model = incoming.document.get("model")
    kind: Literal["chat", "completion"] = "chat"
    if incoming.api == "completions":
        kind = "completion"
    about = about_of(model, incoming.stream, caller, kind)
    if hooks.sees_requests:
        incoming = await seen(hooks, incoming, about)
    return HookedRequest(incoming, hooks, about)


async def seen(hooks: Hooks, incoming: Incoming, about: About) -> Incoming:
    """The request that hooks have made of this one."""
    document = incoming.document
    groups = groups_of(incoming)
    limit = limit_of(incoming)
    messages = [message for group in groups for message in group.chat]
    prompts = prompts_of(document) if incoming.api == "completions" else []
    view = RequestView(
        copy.deepcopy(messages),
        copy.deepcopy(prompts),
        limit,
        tools_of(document),
        MappingProxyType(document),
    )
    await hooks.before(view, about)
    fields: Json = {}
    if view.messages != messages:
        try:
            fields |= fields_of(incoming, groups, view.messages)
        except (AttributeError, KeyError, TypeError) as error:
            raise hooks.failed("before", error) from None
    if view.prompts != prompts:
        several = isinstance(document["prompt"], list) and not is_ids(document["prompt"])
        fields["prompt"] = view.prompts if several else view.prompts[0]
    if view.max_tokens != limit:
        fields |= limited(incoming, view.max_tokens)
    return with_changes(incoming, fields) if fields else incoming


def groups_of(incoming: Incoming) -> list[Group]:
    """The conversation. Raises InvalidRequest for one that hooks could not be shown."""
    if incoming.api == "completions":
        return []
    if incoming.api == "chat":
        return chat_view.read(incoming.document)
    if incoming.api == "messages":
        return message_view.read(incoming.document)
    return response_view.read(incoming.document)


def fields_of(incoming: Incoming, groups: list[Group], changed: list[Json]) -> Json:
    """The request's fields for a conversation that hooks have changed."""
    if incoming.api == "chat":
        return {"messages": returned(groups, changed, chat_view.back)}
    if incoming.api == "messages":
        return message_view.fields(groups, changed)
    return response_view.fields(incoming.document, groups, changed)


def with_changes(incoming: Incoming, fields: Json) -> Incoming:
    """The request with these fields; those that are None go."""
    document = incoming.document | fields
    gone = [name for name, value in fields.items() if value is None]
    for name in gone:
        del document[name]
    body = orjson.dumps(document) if gone else with_fields(incoming.body, fields, incoming.document)
    return replace(incoming, body=body, document=document)


def prompts_of(document: Json) -> list[Any]:
    """Prompts of a completion, each a text or token ids. Raises InvalidRequest."""
    value = document.get("prompt")
    if isinstance(value, str) or (isinstance(value, list) and is_ids(value)):
        return [value]
    if not isinstance(value, list):
        wrong_type("prompt", value, "a string or an array")
    for index, item in enumerate(value):
        if not isinstance(item, str | list):
            wrong_type(f"prompt[{index}]", item, "a string or an array of token ids")
    return value


def is_ids(value: list[Any]) -> bool:
    """Whether an array is one prompt of token ids."""
    return bool(value) and all(type(item) is int for item in value)


def limit_of(incoming: Incoming) -> int | None:
    """Most output tokens that the request allows."""
    for name in LIMITS[incoming.api]:
        value = incoming.document.get(name)
        if type(value) is int and value > 0:
            return value
    return None


def limited(incoming: Incoming, limit: int | None) -> Json:
    """The fields for another limit."""
    names = LIMITS[incoming.api]
    given = [name for name in names if incoming.document.get(name) is not None]
    return dict.fromkeys(given or names[:1], limit)


def tools_of(document: Json) -> tuple[MappingProxyType[str, Any], ...]:
    """Offered functions in the form of chat completions; other tools as they were written."""
    tools = document.get("tools")
    choice = document.get("tool_choice")
    none = choice == "none" or (isinstance(choice, dict) and choice.get("type") == "none")
    if none or not isinstance(tools, list):
        return ()
    found = [function_of(tool) for tool in tools if isinstance(tool, dict)]
    return tuple(map(MappingProxyType, copy.deepcopy(found)))


def function_of(tool: Json) -> Json:
    """One tool."""
    if "function" in tool or tool.get("type", "custom") not in ("function", "custom"):
        return tool
    function = {name: tool[name] for name in ("name", "description", "strict") if name in tool}
    schema = tool.get("parameters", tool.get("input_schema"))
    return {"type": "function", "function": {**function, "parameters": schema}}


def spelled_by(incoming: Incoming) -> list[str]:
    """Fields of a request that ask for what spells the answer's texts in another way."""
    document = incoming.document
    if incoming.api == "responses":
        include = document.get("include")
        return ["include"] if isinstance(include, list) and LOGPROBS in include else []
    return [name for name in ("logprobs", "return_token_ids") if asks(document.get(name))]


def choices_of(incoming: Incoming) -> int:
    """How many choices are asked for. Raises InvalidRequest for more than anybody may."""
    if incoming.api not in ("chat", "completions"):
        return 1
    n = incoming.document.get("n")
    choices = n if type(n) is int and n > 0 else 1
    if incoming.api == "completions":
        choices *= max(1, len(prompts_of(incoming.document)))
    if choices > MOST_CHOICES:
        raise InvalidRequest(f"'n' asks for more than {MOST_CHOICES} choices.", param="n")
    return choices

"""Requests for other servers as hooks see them, and what servers get of what hooks change."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chat.caller import Caller
from gateway.control.rights import Principal
from gateway.errors import HookFailed, InvalidRequest
from gateway.hooks.api import About, Hook, RequestView
from gateway.hooks.run import Hooks
from gateway.protocol.content_parts import ImagePart
from gateway.relay.hooked.request import groups_of, hooked_request
from gateway.relay.outgoing import Incoming
from gateway.routing.config import Api

Json = dict[str, Any]
PIXEL = "data:image/png;base64,AA"
THINKING = {"type": "thinking", "thinking": "hm", "signature": "sig"}
MARK: Any = {"cache_control": {"type": "ephemeral"}}


class Editing(Hook):
    """Does one thing to every request, and keeps what it saw."""

    def __init__(self, edit: Callable[[RequestView], None]) -> None:
        self._edit = edit
        self.seen: list[RequestView] = []

    async def before(self, request: RequestView, about: About) -> None:
        self.seen.append(replace(request, messages=copy.deepcopy(request.messages)))
        self._edit(request)


def incoming_of(api: Api, document: Json) -> Incoming:
    return Incoming(api, json.dumps(document).encode(), document, {}, "r", None)


async def edited(
    api: Api, document: Json, edit: Callable[[RequestView], None]
) -> tuple[Json, RequestView]:
    """What a server gets, and what the hook saw."""
    hook = Editing(edit)
    incoming = incoming_of(api, document)
    before = copy.deepcopy(document)
    caller = Caller(Principal("k", "salt"), 0.0, {}, [])
    found = await hooked_request(Hooks([("editing", hook)], 5.0), incoming, caller)
    assert document == before, "the client's own is not touched"
    assert json.loads(found.incoming.body) == found.incoming.document
    assert found.incoming.document != document or found.incoming.body is incoming.body
    return found.incoming.document, hook.seen[0]


def nothing(view: RequestView) -> None:
    pass


CHAT: Json = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AA"}},
            ],
            "name": "ann",
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning": "hm",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "r"}]},
    ],
    "max_tokens": 9,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
}
MESSAGES: Json = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "be kind", **MARK}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", **MARK},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "AA"},
                },
                {"type": "document", "source": {"type": "text", "data": "d"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                THINKING,
                {"type": "text", "text": "let me see"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": "r", "is_error": False},
                {"type": "text", "text": "and?"},
            ],
        },
    ],
    "tools": [{"name": "f", "input_schema": {}}],
}
RESPONSES: Json = {
    "model": "m",
    "instructions": "be kind",
    "max_output_tokens": 9,
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            ],
        },
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "let me see", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
        {"type": "computer_call_output", "call_id": "d", "output": {"x": "y"}},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {}}],
}
REQUESTS: dict[Api, Json] = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}


@pytest.mark.parametrize("api", REQUESTS)
async def test_what_hooks_see_is_a_chat(api: Api) -> None:
    sent, view = await edited(api, REQUESTS[api], nothing)
    assert sent == REQUESTS[api]
    calls = view.messages[2]["tool_calls"]
    assert calls[0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert view.messages[2]["reasoning_content"] == "hm"
    assert view.messages[0] == {"role": "system", "content": "be kind"}
    assert view.messages[1]["content"][:2] == ["a", ImagePart(PIXEL, "")]
    assert view.messages[3] == {"role": "tool", "tool_call_id": "c", "content": "r"}
    assert view.max_tokens == 9
    assert [tool["function"]["name"] for tool in view.tools] == ["f"]
    assert "computer_call_output" in str(view.messages) or api != "responses"


@pytest.mark.parametrize("api", REQUESTS)
async def test_only_what_is_changed_is_written_anew(api: Api) -> None:
    def redact(view: RequestView) -> None:
        view.messages[1]["content"][0] = "b"
        view.messages[3]["content"] = "s"

    sent, _ = await edited(api, REQUESTS[api], redact)
    wanted = json.loads(json.dumps(REQUESTS[api]))
    if api == "chat":
        wanted["messages"][1]["content"][0]["text"] = "b"
        wanted["messages"][3]["content"] = "s"
    elif api == "messages":
        wanted["messages"][0]["content"][0] = {"type": "text", "text": "b"}
        wanted["messages"][2]["content"][0]["content"] = [{"type": "text", "text": "s"}]
    else:
        wanted["input"][0]["content"][0]["text"] = "b"
        wanted["input"][4]["output"] = "s"
    assert sent == wanted


@pytest.mark.parametrize("api", REQUESTS)
async def test_messages_come_and_go(api: Api) -> None:
    def instruct(view: RequestView) -> None:
        view.messages[0] = {"role": "system", "content": "be brief"}
        view.messages.append({"role": "user", "content": "go on"})
        view.max_tokens = 5

    sent, _ = await edited(api, REQUESTS[api], instruct)
    name = "input" if api == "responses" else "messages"
    assert sent[name][1] == REQUESTS[api][name][1], "what is before and after stays"
    groups = groups_of(incoming_of(api, sent))
    chat = [message for group in groups for message in group.chat]
    assert chat[0] == {"role": "system", "content": "be brief"}
    assert chat[-1] == {"role": "user", "content": "go on"}
    assert 5 in (sent.get("max_tokens"), sent.get("max_output_tokens"))

    def unburden(view: RequestView) -> None:
        del view.messages[0]

    sent, _ = await edited(api, REQUESTS[api], unburden)
    assert "be kind" not in json.dumps(sent)
    assert not {"system", "instructions"} & sent.keys()


TEXTS = st.text("ab \n", min_size=1, max_size=6).map(lambda text: f"x{text}")
ARGUMENTS = st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2)


@st.composite
def conversations(draw: Any) -> list[Json]:
    """As a hook may leave one behind."""
    found: list[Json] = []
    if draw(st.booleans()):
        found.append({"role": "system", "content": draw(TEXTS)})
    for number in range(draw(st.integers(1, 3))):
        found.append({"role": "user", "content": draw(TEXTS)})
        message: Json = {"role": "assistant", "content": draw(TEXTS)}
        if draw(st.booleans()):
            message["reasoning_content"] = draw(TEXTS)
        found.append(message)
        if draw(st.booleans()):
            call = {"name": "f", "arguments": draw(ARGUMENTS)}
            message["tool_calls"] = [{"id": f"c{number}", "type": "function", "function": call}]
            result = {"role": "tool", "tool_call_id": f"c{number}", "content": draw(TEXTS)}
            found.append(result)
    return found


@pytest.mark.parametrize("api", REQUESTS)
@settings(max_examples=60, deadline=None)
@given(messages=conversations(), keeps=st.integers(0, 4))
async def test_servers_get_the_conversation_that_hooks_leave(
    api: Api, messages: list[Json], keeps: int
) -> None:
    def rewrite(view: RequestView) -> None:
        # Some of what was there stays: what is written anew has to fit in.
        kept = view.messages[:keeps] if keeps > 1 else []
        view.messages = [*kept, *(m for m in messages if not (kept and m["role"] == "system"))]
        wanted.extend(copy.deepcopy(view.messages))

    wanted: list[Json] = []
    sent, _ = await edited(api, REQUESTS[api], rewrite)
    groups = groups_of(incoming_of(api, sent))
    assert [message for group in groups for message in group.chat] == wanted


async def test_prompts_of_completions() -> None:
    def shorten(view: RequestView) -> None:
        view.prompts = ["x" if isinstance(prompt, str) else [7] for prompt in view.prompts]
        view.max_tokens = None

    for prompt, wanted in (
        ("a", "x"),
        (["a", "b"], ["x", "x"]),
        ([1, 2], [7]),
        ([[1], "a"], [[7], "x"]),
    ):
        sent, view = await edited("completions", {"prompt": prompt, "max_tokens": 3}, shorten)
        assert sent == {"prompt": wanted}
        assert view.max_tokens == 3


@pytest.mark.parametrize(
    ("api", "document", "param"),
    [
        ("chat", {"messages": "hi"}, "messages"),
        ("chat", {"messages": ["hi"]}, "messages[0]"),
        ("chat", {"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ("messages", {"messages": [{"role": 7, "content": "x"}]}, "messages[0].role"),
        ("responses", {"input": 7}, "input"),
        ("completions", {"prompt": [None]}, "prompt[0]"),
    ],
)
async def test_what_hooks_could_not_be_shown_is_refused(
    api: Api, document: Json, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await edited(api, document, nothing)
    assert refused.value.param == param


@pytest.mark.parametrize("api", REQUESTS)
async def test_what_cannot_be_sent_is_the_hooks_fault(api: Api) -> None:
    def spoil(view: RequestView) -> None:
        view.messages.append({"role": "assistant", "content": "x", "tool_calls": [{"id": "c"}]})

    if api == "chat":
        sent, _ = await edited(api, REQUESTS[api], spoil)
        assert sent["messages"][-1]["tool_calls"] == [{"id": "c"}]
        return
    with pytest.raises(HookFailed):
        await edited(api, REQUESTS[api], spoil)

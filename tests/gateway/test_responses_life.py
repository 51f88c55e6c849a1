"""Stored responses through restarts, crashes, several keys, full and broken disks."""

import contextlib
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_process import SENTENCE, NewServer, ServerProcess

FIRST = "responses-secret-key-number-one"
SECOND = "responses-secret-key-number-two"
# Minutes, at the pace of these tests.
ENDLESS: Any = {"ignore_eos": True, "max_output_tokens": 4000}


Connect = Callable[..., openai.OpenAI]


@pytest.fixture
def client() -> Iterator[Connect]:
    """Makes clients, and closes their connections in the end."""
    with contextlib.ExitStack() as stack:

        def connect(server: ServerProcess, key: str = "none") -> openai.OpenAI:
            url = f"{server.url}/v1"
            return stack.enter_context(
                openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
            )

        yield connect


def ask(sdk: openai.OpenAI, **fields: Any) -> Any:
    return sdk.responses.create(model="bundled", input="Hello", **fields)


def test_stored_responses_outlive_a_killed_server(
    new_server: NewServer, client: Connect, tmp_path: Path
) -> None:
    data = str(tmp_path / "state" / "deep")
    options = {"text": SENTENCE, "itl_s": 0.05}
    server = new_server(options=options, DATA_DIR=data).wait_ready()
    sdk = client(server)
    done = ask(sdk, metadata={"kept": "yes"})
    streamed = list(ask(sdk, background=True, stream=True))
    running = ask(sdk, background=True, extra_body=ENDLESS)
    server.wait_for(
        lambda: sdk.responses.retrieve(running.id).status == "in_progress", "the work to begin"
    )
    server.signal(signal.SIGKILL)
    server.process.wait(30)

    sdk = client(new_server(options=options, DATA_DIR=data).wait_ready())
    again = sdk.responses.retrieve(done.id)
    assert again.model_dump() == done.model_dump()
    assert [item.id for item in sdk.responses.input_items.list(done.id)]
    lost = sdk.responses.retrieve(running.id)
    assert lost.status == "failed"
    assert lost.error is not None
    assert lost.error.code == "server_error"
    replayed = list(sdk.responses.retrieve(streamed[0].response.id, stream=True))
    assert [event.model_dump() for event in replayed] == [event.model_dump() for event in streamed]
    assert ask(sdk, previous_response_id=done.id).status == "completed"
    assert oct((tmp_path / "state" / "deep").stat().st_mode & 0o777) == "0o700"
    for file in (tmp_path / "state" / "deep").glob("responses.sqlite*"):
        assert oct(file.stat().st_mode & 0o777) == "0o600", file


def test_a_drain_ends_background_work_in_the_store(
    new_server: NewServer, client: Connect, tmp_path: Path
) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "DRAIN_TIMEOUT_S": "0"}
    server = new_server(options={"itl_s": 0.05}, **settings).wait_ready()
    sdk = client(server)
    running = ask(sdk, background=True, extra_body=ENDLESS)
    server.wait_for(
        lambda: sdk.responses.retrieve(running.id).status == "in_progress", "the work to begin"
    )
    server.signal()
    assert server.wait_exit() == 0
    with sqlite3.connect(tmp_path / "data" / "responses.sqlite") as db:
        assert db.execute("SELECT id, status FROM responses").fetchall() == [(running.id, "failed")]
    db.close()


def test_two_gateways_share_a_folder(
    new_server: NewServer, client: Connect, tmp_path: Path
) -> None:
    settings: Any = {"options": {"itl_s": 0.05}, "DATA_DIR": str(tmp_path / "data")}
    first = new_server(**settings).wait_ready()
    running = ask(client(first), background=True, extra_body=ENDLESS)
    second = client(new_server(**settings).wait_ready())
    assert second.responses.retrieve(running.id).status in ("queued", "in_progress")
    assert second.responses.cancel(running.id).status == "cancelled"
    assert client(first).responses.cancel(running.id).status == "cancelled"
    assert second.responses.retrieve(running.id).status == "cancelled"


def test_keys_do_not_see_each_others_responses(new_server: NewServer, client: Connect) -> None:
    server = new_server(options={"itl_s": 0.02}, API_KEYS=f"{FIRST},{SECOND}").wait_ready()
    owner, other = client(server, FIRST), client(server, SECOND)
    stored = ask(owner, max_output_tokens=3)
    running = ask(owner, background=True, extra_body=ENDLESS)
    item = owner.responses.input_items.list(stored.id).data[0].id
    for response in (stored, running):
        for attempt in (
            lambda r=response: other.responses.retrieve(r.id),
            lambda r=response: other.responses.retrieve(r.id, stream=True),
            lambda r=response: other.responses.delete(r.id),
            lambda r=response: other.responses.cancel(r.id),
            lambda r=response: other.responses.input_items.list(r.id),
        ):
            with pytest.raises(openai.NotFoundError):
                attempt()
        with pytest.raises(openai.BadRequestError) as refused:
            ask(other, previous_response_id=response.id)
        assert refused.value.code == "previous_response_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        other.responses.create(model="bundled", input=[{"type": "item_reference", "id": item}])
    assert (refused.value.code, refused.value.param) == ("item_not_found", "input[0].id")
    assert owner.responses.retrieve(stored.id).status == "incomplete"
    assert owner.responses.cancel(running.id).status == "cancelled"
    for path in ("", "/cancel", "/input_items"):
        url = f"{server.url}/v1/responses/{stored.id}{path}"
        method = "POST" if path == "/cancel" else "GET"
        assert httpx.request(method, url).status_code == 401


def test_bounds_forget_the_least_recently_used(new_server: NewServer, client: Connect) -> None:
    settings = {"API_KEYS": f"{FIRST},{SECOND}", "RESPONSES_MAX_STORED": "3"}
    server = new_server(options={"text": SENTENCE}, **settings).wait_ready()
    sdk, other = client(server, FIRST), client(server, SECOND)
    untouched = ask(other)
    oldest = ask(sdk)
    dropped = ask(sdk)
    kept = [oldest, ask(sdk, previous_response_id=oldest.id)]
    kept.append(ask(sdk, previous_response_id=kept[-1].id))
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(dropped.id)
    for response in kept:
        assert sdk.responses.retrieve(response.id).id == response.id
    assert other.responses.retrieve(untouched.id).id == untouched.id


def test_what_is_too_large_or_too_old_is_not_kept(new_server: NewServer, client: Connect) -> None:
    settings = {"RESPONSES_MAX_BYTES": str(1024 * 1024), "RESPONSES_MAX_AGE_S": "3"}
    server = new_server(options={"text": SENTENCE}, MAX_MODEL_LEN="10000000", **settings)
    sdk = client(server.wait_ready())
    small = ask(sdk)
    assert small.store is True
    large = sdk.responses.create(model="bundled", input="x" * 1_200_000)
    assert large.status == "completed"
    assert large.store is False  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(large.id)
    assert server.metric("gateway_responses_not_stored_total") == 1
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="bundled", input="x" * 1_200_000, background=True)
    assert refused.value.param == "background"
    time.sleep(4)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(small.id)


def test_serving_goes_on_without_a_folder(
    new_server: NewServer, client: Connect, tmp_path: Path
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    server = new_server(options={"text": SENTENCE}, DATA_DIR=str(blocked)).wait_ready()
    sdk = client(server)
    first = ask(sdk)
    assert sdk.responses.retrieve(first.id).output_text == SENTENCE
    assert ask(sdk, previous_response_id=first.id).status == "completed"
    warnings = [line for line in server.log_lines() if "DATA_DIR" in line["message"]]
    assert len(warnings) == 1
    assert blocked.read_text() == ""


def test_serving_goes_on_while_the_database_is_locked(
    new_server: NewServer, client: Connect, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    server = new_server(options={"text": SENTENCE}, DATA_DIR=str(data)).wait_ready()
    sdk = client(server)
    first = ask(sdk)
    lock = sqlite3.connect(data / "responses.sqlite", isolation_level=None)
    try:
        lock.execute("BEGIN IMMEDIATE")
        slow = ask(sdk)
        assert slow.output_text == SENTENCE
        assert sdk.chat.completions.create(
            model="bundled", messages=[{"role": "user", "content": "x"}]
        )
        with pytest.raises(openai.InternalServerError) as refused:
            sdk.responses.retrieve(first.id)
        assert refused.value.code == "storage_unavailable"
        assert refused.value.status_code == 503
        server.wait_for(
            lambda: server.metric("gateway_responses_not_stored_total") == 1,
            "the loss to be counted",
        )
    finally:
        lock.rollback()
        lock.close()
    assert sdk.responses.retrieve(first.id).id == first.id
    assert sdk.responses.retrieve(ask(sdk).id).output_text == SENTENCE


def test_an_engine_that_dies_fails_the_response(new_server: NewServer, client: Connect) -> None:
    options = {"die_after_tokens": 12, "text": SENTENCE, "itl_s": 0.01}
    sdk = client(new_server(options=options, RESTART_DELAY_S="0.1").wait_ready())
    events = list(ask(sdk, stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    (item,) = events[-1].response.output
    assert SENTENCE.startswith(item.content[0].text)
    assert sdk.responses.retrieve(events[0].response.id).status == "failed"


def test_a_client_that_leaves_frees_the_engine_and_keeps_what_there_is(
    new_server: NewServer, client: Connect
) -> None:
    server = new_server(options={"text": SENTENCE * 50, "itl_s": 0.02}).wait_ready()
    body = {"input": "Hello", "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v1/responses", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        assert next(lines) == "event: response.created"
        made = json.loads(next(lines).removeprefix("data: "))["response"]
        next(line for line in lines if line == "event: response.output_text.delta")
    server.wait_for(
        lambda: server.metric("vllm:num_requests_running") == 0, "the engine to be free"
    )
    server.wait_for(
        lambda: any(line.get("outcome") == "cancelled" for line in server.log_lines()),
        "the request to count as cancelled",
    )
    sdk = client(server)
    kept = sdk.responses.retrieve(made["id"])
    assert kept.status == "cancelled"
    (item,) = kept.output
    assert item.type == "message"
    assert item.status == "incomplete"
    assert SENTENCE.startswith(kept.output_text[: len(SENTENCE)])
    assert kept.output_text
    assert kept.usage is not None
    assert kept.usage.output_tokens > 0
    following = sdk.responses.create(
        model="bundled", input="Go on", previous_response_id=kept.id, max_output_tokens=16
    )
    assert following.usage is not None
    assert following.usage.input_tokens > kept.usage.input_tokens


def test_silence_before_the_first_token_is_filled(new_server: NewServer) -> None:
    options = {"text": SENTENCE, "ttft_s": 1.0}
    server = new_server(options=options, SSE_PING_S="0.1").wait_ready()
    url = f"{server.url}/v1/responses"
    body = {"input": "Hello", "stream": True}
    for fields in ({}, {"background": True}):
        with httpx.stream("POST", url, json=body | fields, timeout=60) as reply:
            lines = [line for line in reply.iter_lines() if line]
        assert lines.count(": ping") >= 2
        last = json.loads(lines[-1].removeprefix("data: "))
        assert last["type"] == "response.completed"


def test_more_background_work_than_may_wait_is_refused(
    new_server: NewServer, client: Connect
) -> None:
    settings = {"MAX_QUEUE": "2", "MAX_NUM_SEQS": "1"}
    server = new_server(options={"itl_s": 0.05}, **settings).wait_ready()
    sdk = client(server)
    running = [ask(sdk, background=True, extra_body=ENDLESS) for _ in range(2)]
    with pytest.raises(openai.InternalServerError) as refused:
        ask(sdk, background=True)
    assert refused.value.code == "server_is_overloaded"
    results = []
    threads = [
        threading.Thread(target=lambda r=r: results.append(sdk.responses.cancel(r.id).status))
        for r in running
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == ["cancelled", "cancelled"]
    assert ask(sdk, background=True, max_output_tokens=1).status == "queued"


def test_thinking_is_an_item_of_its_own(new_server: NewServer, client: Connect) -> None:
    options = {"text": "<think>Let me see.</think>Four."}
    sdk = client(new_server(options=options, REASONING_PARSER="qwen3").wait_ready())
    whole = ask(sdk)
    thought, said = whole.output
    assert (thought.type, thought.content[0].text) == ("reasoning", "Let me see.")
    assert said.content[0].text == whole.output_text == "Four."
    assert whole.usage.output_tokens_details.reasoning_tokens > 10
    with sdk.responses.stream(model="bundled", input="Hello") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message"]
    deltas = [e.delta for e in events if e.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == "Let me see."
    kinds = [event.type for event in events]
    assert kinds.index("response.reasoning_text.done") < kinds.index("response.output_text.delta")
    again = ask(sdk, previous_response_id=whole.id)
    assert again.usage.input_tokens > whole.usage.input_tokens
    (hidden,) = ask(sdk, extra_body={"include_reasoning": False}).output
    assert hidden.type == "message"

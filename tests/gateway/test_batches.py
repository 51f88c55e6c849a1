"""Batches over HTTP, as the OpenAI SDK uses them, and what happens to them when things break."""

import json
import signal
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch
from server_process import NewServer, ServerProcess

from gateway.batch.pace import allowed

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
KEY_A = "a" * 32
KEY_B = "b" * 32
PATIENCE_S = 120.0
OPEN_CLIENTS: list[openai.OpenAI] = []

Line = dict[str, Any]


def sdk(server: ServerProcess, key: str = KEY_A) -> openai.OpenAI:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
    OPEN_CLIENTS.append(client)
    return client


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while OPEN_CLIENTS:
        OPEN_CLIENTS.pop().close()


def line(name: str, url: str = CHAT, **body: Any) -> Line:
    content = {"messages": [{"role": "user", "content": f"say {name}"}]} if url == CHAT else {}
    return {
        "custom_id": name,
        "method": "POST",
        "url": url,
        "body": {"model": "bundled", "max_tokens": 8} | content | body,
    }


def upload(client: openai.OpenAI, lines: Iterable[Line | str]) -> str:
    text = "\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in lines)
    return client.files.create(file=("in.jsonl", text.encode()), purpose="batch").id


def create(
    client: openai.OpenAI, lines: Iterable[Line | str], url: Any = CHAT, **fields: Any
) -> Batch:
    return client.batches.create(
        input_file_id=upload(client, lines), endpoint=url, completion_window="24h", **fields
    )


def wait(
    client: openai.OpenAI, batch: Batch, states: Iterable[str] = ENDED, done: int = 0
) -> Batch:
    """Poll until the batch is in one of the states and has so many lines completed."""
    began = time.monotonic()
    while True:
        batch = client.batches.retrieve(batch.id)
        counts = batch.request_counts
        assert counts is not None
        assert counts.completed + counts.failed <= max(counts.total, 0)
        if batch.status in states and counts.completed >= done:
            return batch
        assert batch.status not in ENDED, batch
        assert time.monotonic() - began < PATIENCE_S, batch
        time.sleep(0.05)


def read(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def names(results: list[dict[str, Any]]) -> list[str]:
    return [result["custom_id"] for result in results]


def counts(batch: Batch) -> tuple[int, int, int]:
    found = batch.request_counts
    assert found is not None
    return found.total, found.completed, found.failed


@pytest.fixture
def quick(shared_server: NewServer) -> ServerProcess:
    return shared_server(
        options={"text": "Hello there."}, MAX_NUM_SEQS="4", API_KEYS=f"{KEY_A},{KEY_B}"
    )


def test_a_batch_from_upload_to_result(quick: ServerProcess) -> None:
    client = sdk(quick)
    before = quick.metrics()
    batch = create(client, [line("one"), line("two")], metadata={"team": "blue"})
    assert batch.object == "batch"
    assert batch.status == "validating"
    assert batch.expires_at == batch.created_at + 86_400
    assert batch.metadata == {"team": "blue"}
    batch = wait(client, batch)
    assert batch.status == "completed"
    assert counts(batch) == (2, 2, 0)
    assert batch.model == "bundled"
    assert batch.error_file_id is None
    for moment in ("created_at", "in_progress_at", "finalizing_at", "completed_at"):
        assert abs(getattr(batch, moment) - time.time()) < PATIENCE_S
    results = read(client, batch.output_file_id)
    assert names(results) == ["one", "two"]
    for result in results:
        assert set(result) == {"id", "custom_id", "response", "error"}
        assert result["error"] is None
        assert result["response"]["status_code"] == 200
        assert result["response"]["request_id"]
        answer = openai.types.chat.ChatCompletion.model_validate(result["response"]["body"])
        assert answer.choices[0].message.content == "Hello th"
    used = [result["response"]["body"]["usage"] for result in results]
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in used)
    assert batch.usage.output_tokens == 16
    assert batch.output_file_id is not None
    stored = client.files.retrieve(batch.output_file_id)
    assert stored.purpose == "batch_output"
    assert stored.bytes == len(client.files.content(stored.id).read())
    assert quick.metric("gateway_batch_lines_waiting") == 0
    for name, more in (
        ('gateway_batch_lines_total{outcome="completed"}', 2),
        ('gateway_batch_ended_total{status="completed"}', 1),
    ):
        assert quick.metric(name) == before.get(name, 0) + more


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/completions", {"prompt": "Once"}),
        ("/v1/responses", {"input": "Hello", "max_output_tokens": 16, "max_tokens": None}),
    ],
)
def test_other_endpoints(quick: ServerProcess, url: str, body: dict[str, Any]) -> None:
    client = sdk(quick)
    batch = wait(client, create(client, [line(n, url, **body) for n in ("a", "b")], url=url))
    assert counts(batch) == (2, 2, 0), read(client, batch.error_file_id)
    results = read(client, batch.output_file_id)
    assert names(results) == ["a", "b"]
    direct = httpx.post(
        f"{quick.url}{url}",
        json={"model": "bundled", "max_tokens": 8} | body,
        headers={"x-api-key": KEY_A},
        timeout=60,
    )
    assert set(results[0]["response"]["body"]) == set(direct.json())


FAULTS: list[tuple[Line | str, str, str | None]] = [
    ("{no json", "invalid_json_line", None),
    ("[1]", "invalid_json_line", None),
    (line("x") | {"custom_id": None}, "missing_required_parameter", "custom_id"),
    (line("x") | {"body": None}, "missing_required_parameter", "body"),
    (line("good"), "duplicate_custom_id", "custom_id"),
    (line("x" * 513), "invalid_value", "custom_id"),
    (line("x") | {"custom_id": 7}, "invalid_value", "custom_id"),
    (line("x") | {"method": "GET"}, "invalid_method", "method"),
    (line("x", "/v1/completions"), "invalid_url", "url"),
    (line("x") | {"body": []}, "invalid_type", "body"),
    (line("x", model="other"), "mismatched_model", "body.model"),
    (line("x", stream=True), "unsupported_parameter", "body.stream"),
]


@pytest.mark.parametrize(("bad", "code", "param"), FAULTS)
def test_a_fault_in_a_line_fails_the_batch(
    quick: ServerProcess, bad: Line | str, code: str, param: str | None
) -> None:
    client = sdk(quick)
    batch = wait(client, create(client, [line("good"), "", bad, line("fine")]))
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.output_file_id is None
    assert batch.errors is not None
    assert batch.errors.object == "list"
    (error,) = batch.errors.data or []
    assert (error.code, error.line, error.param) == (code, 3, param)
    assert error.message


def test_a_file_without_requests_and_an_unknown_model(quick: ServerProcess) -> None:
    client = sdk(quick)
    found = []
    for lines in ([], ["", "  "], [line("a", model="nobody")]):
        batch = wait(client, create(client, lines))
        assert batch.status == "failed"
        assert batch.errors is not None
        found.append([(e.code, e.line) for e in batch.errors.data or []])
    assert found == [[("empty_file", None)], [("empty_file", None)], [("model_not_found", 1)]]


def test_every_fault_is_listed_up_to_a_bound(quick: ServerProcess) -> None:
    client = sdk(quick)
    batch = wait(client, create(client, ["{"] * 500))
    assert batch.errors is not None
    assert [error.line for error in batch.errors.data or []] == list(range(1, 51))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/audio/speech"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-unknown"}, "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, "input_file_id"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
        ),
    ],
)
def test_bad_requests_name_the_field(
    quick: ServerProcess, change: dict[str, Any], param: str
) -> None:
    body = {
        "input_file_id": upload(sdk(quick), [line("a")]),
        "endpoint": CHAT,
        "completion_window": "24h",
    }
    headers = {"x-api-key": KEY_A}
    reply = httpx.post(f"{quick.url}/v1/batches", json=body | change, headers=headers)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_only_files_for_batches_are_taken(quick: ServerProcess) -> None:
    client = sdk(quick)
    stored = client.files.create(file=("a", b"{}"), purpose="user_data")
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(input_file_id=stored.id, endpoint=CHAT, completion_window="24h")
    assert caught.value.param == "input_file_id"


def test_batches_belong_to_their_key(quick: ServerProcess) -> None:
    client, other = sdk(quick), sdk(quick, KEY_B)
    file_id = upload(client, [line("a")])
    with pytest.raises(openai.BadRequestError):
        other.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    batch = wait(client, create(client, [line("a")]))
    assert batch.id not in [b.id for b in other.batches.list()]
    for ask in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(batch.id)
    assert batch.output_file_id is not None
    with pytest.raises(openai.NotFoundError):
        other.files.content(batch.output_file_id)
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_lists_are_paged(quick: ServerProcess) -> None:
    client = sdk(quick)
    made = [create(client, [line("a")]) for _ in range(5)]
    page = client.batches.list(limit=2)
    assert [b.id for b in page.data] == [made[4].id, made[3].id]
    assert page.has_more is True
    ids = [b.id for b in client.batches.list(limit=2)]
    assert ids[:5] == [b.id for b in made[::-1]]
    for batch in made:
        assert wait(client, batch).status == "completed"


def test_200_lines_survive_engines_that_die(new_server: NewServer) -> None:
    server = new_server(
        options={"die_after_tokens": 300, "ttft_s": 0.01, "itl_s": 0.001},
        MAX_NUM_SEQS="5",
        RESTART_DELAY_S="0.1",
        DRAIN_TIMEOUT_S="0",
    ).wait_ready()
    client = sdk(server)
    lines = [line(f"r{n}") for n in range(200)]
    bad = {n: f"r{n}" for n in range(0, 200, 20)}
    for n in bad:
        lines[n]["body"]["temperature"] = 99
    batch = wait(client, create(client, lines))
    assert batch.status == "completed"
    deaths = max(value for key, value in server.metrics().items() if "engine_restarts" in key)
    assert deaths >= 2, "the test did not test what it should"
    results, failures = read(client, batch.output_file_id), read(client, batch.error_file_id)
    # A line may by bad luck have met five deaths; it is answered all the same.
    unlucky = [f["custom_id"] for f in failures if f["response"]["status_code"] == 503]
    assert len(unlucky) <= 5
    assert names(results) == [
        f"r{n}" for n in range(200) if n not in bad and f"r{n}" not in unlucky
    ]
    assert sorted([*bad.values(), *unlucky], key=lambda name: int(name[1:])) == names(failures)
    assert counts(batch) == (200, len(results), len(failures))
    for result in results:
        assert result["response"]["body"]["usage"]["completion_tokens"] == 8
    for failure in failures:
        if failure["custom_id"] not in unlucky:
            assert failure["response"]["status_code"] == 400
            assert failure["response"]["body"]["error"]["param"] == "temperature"


def test_a_line_that_always_kills_the_engine_gets_an_answer(new_server: NewServer) -> None:
    server = new_server(options={"die_after_tokens": 1}, RESTART_DELAY_S="0.1").wait_ready()
    client = sdk(server)
    batch = wait(client, create(client, [line("deadly")]))
    assert counts(batch) == (1, 0, 1)
    (failure,) = read(client, batch.error_file_id)
    assert failure["response"]["status_code"] == 503
    assert failure["response"]["body"]["error"]["code"] == "engine_unavailable"


def sql(data_dir: Path, statement: str) -> list[Any]:
    """The rows of a statement on the batches of a server that runs or has ended."""
    with closing(sqlite3.connect(data_dir / "batches.sqlite3")) as db, db:
        return db.execute(statement).fetchall()


def test_a_killed_server_goes_on_where_it_was(new_server: NewServer, tmp_path: Path) -> None:
    data_dir = tmp_path / "kept"
    settings: dict[str, Any] = {
        "options": {"itl_s": 0.02},
        "MAX_NUM_SEQS": "4",
        "DATA_DIR": str(data_dir),
    }
    first = new_server(**settings).wait_ready()
    batch = create(sdk(first), [line(f"r{n}") for n in range(60)])
    wait(sdk(first), batch, ["in_progress"], done=10)
    first.signal(signal.SIGKILL)
    first.process.wait()
    kept: dict[int, bytes] = dict(sql(data_dir, "SELECT line, body FROM results"))
    assert 10 <= len(kept) < 60

    second = new_server(**settings).wait_ready()
    client = sdk(second)
    batch = wait(client, batch)
    assert batch.status == "completed"
    assert counts(batch) == (60, 60, 0)
    assert client.files.content(str(batch.output_file_id)).text.count("\n") == 60
    texts = client.files.content(str(batch.output_file_id)).text.splitlines()
    assert [json.loads(text)["custom_id"] for text in texts] == [f"r{n}" for n in range(60)]
    for number, body in kept.items():
        assert texts[number - 1].encode() == body
    samples = second.metrics()
    ran = sum(n for name, n in samples.items() if name.startswith("vllm:request_success_total"))
    assert ran == 60 - len(kept)
    leftover = {path.name for path in (data_dir / "files").iterdir()}
    assert leftover == {batch.input_file_id, batch.output_file_id}


def test_a_line_that_ends_the_server_is_given_up(new_server: NewServer, tmp_path: Path) -> None:
    data_dir = tmp_path / "kept"
    settings: dict[str, Any] = {"options": {"itl_s": 10_000}, "DATA_DIR": str(data_dir)}
    first = new_server(**settings).wait_ready()
    batch = create(sdk(first), [line("deadly")])

    def begun() -> list[Any]:
        return sql(data_dir, "SELECT line, begun FROM attempts")

    first.wait_for(lambda: begun() == [(1, 1)], "the line to begin")
    first.kill()
    # As after three more ends of the same kind.
    sql(data_dir, "UPDATE attempts SET begun = 4")
    second = new_server(**settings).wait_ready()
    client = sdk(second)
    batch = wait(client, batch)
    assert (batch.status, counts(batch)) == ("completed", (1, 0, 1))
    (failure,) = read(client, batch.error_file_id)
    assert failure["response"]["status_code"] == 503
    assert begun() == []


def test_an_orderly_end_is_not_held_against_a_line(new_server: NewServer, tmp_path: Path) -> None:
    data_dir = tmp_path / "kept"
    settings: dict[str, Any] = {"options": {"itl_s": 10_000}, "DATA_DIR": str(data_dir)}
    server = new_server(**settings).wait_ready()
    create(sdk(server), [line("slow")])
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the line to run")
    server.signal()
    assert server.wait_exit() == 0
    assert sql(data_dir, "SELECT * FROM attempts") == []
    assert sql(data_dir, "SELECT status FROM batches") == [("in_progress",)]


def test_cancelling_keeps_what_is_finished(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 0.05}, MAX_NUM_SEQS="2").wait_ready()
    client = sdk(server)
    batch = create(client, [line(f"r{n}") for n in range(100)])
    wait(client, batch, ["in_progress"], done=3)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = wait(client, batch)
    assert batch.status == "cancelled"
    assert batch.cancelling_at is not None
    assert batch.cancelled_at is not None
    total, completed, failed = counts(batch)
    assert total == 100
    assert 3 <= completed < 100
    assert failed == 0
    results, rest = read(client, batch.output_file_id), read(client, batch.error_file_id)
    assert len(results) == completed
    assert len(results) + len(rest) == 100
    assert {r["error"]["code"] for r in rest} == {"batch_cancelled"}
    assert all(r["response"] is None for r in rest)
    order = [int(name[1:]) for name in names(rest)]
    assert order == sorted(order)
    assert set(names(results)).isdisjoint(names(rest))
    assert server.metric('gateway_batch_lines_total{outcome="not_run"}') == len(rest)
    assert server.metric('gateway_batch_ended_total{status="cancelled"}') == 1
    server.wait_for(
        lambda: server.metric("gateway_requests_in_flight") == 0, "running lines to end"
    )


def test_what_has_not_run_in_time_expires(new_server: NewServer, tmp_path: Path) -> None:
    data_dir = tmp_path / "kept"
    settings: dict[str, Any] = {"options": {"itl_s": 0.05}, "DATA_DIR": str(data_dir)}
    settings["MAX_NUM_SEQS"] = "2"
    first = new_server(**settings).wait_ready()
    batch = create(sdk(first), [line(f"r{n}") for n in range(100)])
    wait(sdk(first), batch, ["in_progress"], done=2)
    first.signal()
    assert first.wait_exit() == 0
    sql(data_dir, "UPDATE batches SET expires_at = created_at + 1")
    second = new_server(**settings).wait_ready()
    client = sdk(second)
    batch = wait(client, batch)
    assert batch.status == "expired"
    assert batch.expired_at is not None
    results, rest = read(client, batch.output_file_id), read(client, batch.error_file_id)
    assert len(results) >= 2
    assert len(results) + len(rest) == 100
    assert {r["error"]["code"] for r in rest} == {"batch_expired"}


def test_a_batch_does_not_hold_the_drain(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 10_000}, DRAIN_TIMEOUT_S="600").wait_ready()
    create(sdk(server), [line(f"r{n}") for n in range(20)])
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") > 0, "a line to run")
    server.signal()
    assert server.wait_exit(60) == 0


def test_a_batch_waits_while_the_engine_is_overloaded(new_server: NewServer) -> None:
    server = new_server(options={"overloaded": True}).wait_ready()
    client = sdk(server)
    batch = create(client, [line("a"), line("b")])
    wait(client, batch, ["in_progress"])
    time.sleep(3)
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, counts(batch)) == ("in_progress", (2, 0, 0))
    client.batches.cancel(batch.id)
    assert wait(client, batch).status == "cancelled"


def test_people_do_not_wait_for_a_batch(new_server: NewServer) -> None:
    """One seat, taken by a line that would keep it for minutes."""
    server = new_server(options={"itl_s": 0.05}, MAX_NUM_SEQS="1").wait_ready()
    client = sdk(server)
    endless = line("long", max_tokens=4000, ignore_eos=True)
    batch = create(client, [endless])
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the line to run")
    for _ in range(3):
        began = time.monotonic()
        answer = client.chat.completions.create(
            model="bundled", messages=[{"role": "user", "content": "hi"}], max_tokens=4
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
        assert time.monotonic() - began < 30
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the line again")
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, counts(batch)) == ("in_progress", (1, 0, 0))
    client.batches.cancel(batch.id)
    assert wait(client, batch).status == "cancelled"


def test_a_batch_leaves_seats_free(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 0.2}, MAX_NUM_SEQS="8").wait_ready()
    client = sdk(server)
    batch = create(client, [line(f"r{n}", ignore_eos=True) for n in range(30)])
    seen: list[float] = []
    while client.batches.retrieve(batch.id).status not in ENDED:
        seen.append(server.metric("vllm:num_requests_running"))
        # On a busy machine lines that were given seats may all be on their way at once.
        assert server.metric("vllm:num_requests_waiting") <= allowed(8, busy=False)
        time.sleep(0.05)
    assert 1 < max(seen) <= allowed(8, busy=False) == 7


def test_several_batches_take_turns(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 0.02}, MAX_NUM_SEQS="2").wait_ready()
    client = sdk(server)
    long = create(client, [line(f"r{n}") for n in range(200)])
    wait(client, long, ["in_progress"], done=1)
    short = create(client, [line(f"s{n}") for n in range(5)])
    assert wait(client, short).status == "completed"
    assert client.batches.retrieve(long.id).status == "in_progress"
    client.batches.cancel(long.id)
    wait(client, long)


def test_the_input_may_be_deleted_while_it_is_worked_on(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 0.02}, MAX_NUM_SEQS="2").wait_ready()
    client = sdk(server)
    batch = create(client, [line(f"r{n}") for n in range(20)])
    client.files.delete(batch.input_file_id)
    batch = wait(client, batch)
    assert counts(batch) == (20, 20, 0)


def test_one_process_per_folder_works_batches_off(new_server: NewServer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"options": {"itl_s": 0.02}, "DATA_DIR": str(tmp_path / "kept")}
    settings["MAX_NUM_SEQS"] = "4"
    first = new_server(**settings).wait_ready()
    wait(sdk(first), create(sdk(first), [line("a")]))
    second = new_server(**settings).wait_ready()
    client = sdk(second)
    batch = create(client, [line(f"r{n}") for n in range(60)])
    wait(client, batch, ["in_progress"], done=5)
    assert first.metric("gateway_requests_in_flight") > 0
    assert second.metric("gateway_requests_in_flight") == 0
    first.signal(signal.SIGKILL)
    batch = wait(client, batch)
    assert counts(batch) == (60, 60, 0)
    assert names(read(client, batch.output_file_id)) == [f"r{n}" for n in range(60)]


def test_a_revoked_key_ends_its_batches(new_server: NewServer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"options": {"itl_s": 0.05}, "DATA_DIR": str(tmp_path / "kept")}
    settings["MAX_NUM_SEQS"] = "2"
    first = new_server(API_KEYS=f"{KEY_A},{KEY_B}", **settings).wait_ready()
    batch = create(sdk(first, KEY_B), [line(f"r{n}") for n in range(100)])
    wait(sdk(first, KEY_B), batch, ["in_progress"], done=1)
    first.kill()
    second = new_server(API_KEYS=KEY_A, **settings).wait_ready()
    data_dir = tmp_path / "kept"
    second.wait_for(
        lambda: sql(data_dir, "SELECT status FROM batches") == [("cancelled",)],
        "the batch to end",
    )


def test_answers_of_the_bundled_model(shared_server: NewServer) -> None:
    server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="2")
    client = sdk(server)
    questions = ["Say hello.", "What is 2+2?", "Name a colour."]
    lines = [
        line(f"q{n}", messages=[{"role": "user", "content": text}], temperature=0, max_tokens=12)
        for n, text in enumerate(questions)
    ]
    batch = create(client, lines)
    done = threading.Event()
    latencies: list[float] = []

    def chat() -> None:
        while not done.is_set():
            began = time.monotonic()
            client.chat.completions.create(
                model="bundled", messages=[{"role": "user", "content": "hi"}], max_tokens=2
            )
            latencies.append(time.monotonic() - began)

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        batch = wait(client, batch)
    finally:
        done.set()
        thread.join(60)
    assert counts(batch) == (3, 3, 0), read(client, batch.error_file_id)
    assert latencies
    assert max(latencies) < 30
    for text, result in zip(questions, read(client, batch.output_file_id), strict=True):
        direct = client.chat.completions.create(
            model="bundled",
            messages=[{"role": "user", "content": text}],
            temperature=0,
            max_tokens=12,
        )
        answer = result["response"]["body"]["choices"][0]["message"]["content"]
        assert answer == direct.choices[0].message.content
        assert answer.strip()


async def test_async_sdk(quick: ServerProcess) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{quick.url}/v1", api_key=KEY_A, max_retries=0
    ) as client:
        stored = await client.files.create(
            file=("in.jsonl", json.dumps(line("a")).encode()), purpose="batch"
        )
        batch = await client.batches.create(
            input_file_id=stored.id, endpoint=CHAT, completion_window="24h"
        )
        listed = [b.id async for b in client.batches.list()]
        assert batch.id in listed


def test_shares() -> None:
    assert [allowed(seats, busy=False) for seats in (1, 2, 8, 16, 256)] == [1, 1, 7, 14, 224]
    assert [allowed(seats, busy=True) for seats in (1, 2, 8, 16, 256)] == [1, 1, 2, 4, 64]

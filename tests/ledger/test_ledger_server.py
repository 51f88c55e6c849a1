"""Real gateways, killed and stopped under load: the ledger says what the clients say."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from ledger_load import MESSAGES, Answered, Load
from ledger_postgres import Postgres
from server_process import NewServer, ServerProcess

SECRET = "planted-secret-0123456789abcdef"
KEY_A = "key-a-" + SECRET
KEY_B = "key-b-" + SECRET
ADMIN = "admin-" + SECRET
KEYS = {"API_KEYS": f"{KEY_A},{KEY_B}", "ADMIN_KEYS": ADMIN}
PRICES = """
date: 2026-11-01
source: a test
models:
  bundled: {input: 2, cached: 1, output: 10}
  tiny-chat: {input: 2, cached: 1, output: 10}
"""
# What may be lost when the process is killed is a second; a busy machine may need two.
LAST_S = 2.0

Row = dict[str, Any]
HTTP = httpx.Client(timeout=60)


@pytest.fixture(autouse=True, scope="module")
def _close_client() -> Iterator[None]:
    yield
    HTTP.close()


def wait_for(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        time.sleep(0.02)


def records(data: Path) -> list[Row]:
    with closing(sqlite3.connect(data / "usage" / "usage.sqlite3")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM usage_records")]


def caught_up(server: ServerProcess) -> bool:
    return (
        server.metric("gateway_usage_records_waiting")
        == 0
        < server.metric("gateway_usage_database_up")
    )


def admin_usage(server: ServerProcess, **query: str) -> Any:
    answer = HTTP.get(f"{server.url}/admin/usage", params=query, headers={"x-api-key": ADMIN})
    assert answer.status_code == 200, answer.text
    return answer


def test_what_was_counted_a_second_before_a_kill_is_counted_after_it(
    new_server: NewServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    settings = {**KEYS, "DATA_DIR": str(data)}
    server = new_server(**settings).wait_ready()
    load = Load(server.url, KEY_A, "kill")
    load.wait_for(1)
    began = time.time()
    wait_for(lambda: time.time() > began + LAST_S + 1, "load")
    killed_at = time.time()
    server.signal(signal.SIGKILL)
    server.wait_exit()
    load.stop()
    again = new_server(**settings).wait_ready()
    wait_for(lambda: caught_up(again), "the replay")
    assert len(list((data / "usage").glob("*.journal"))) == 1
    found = Counter(line["request_id"] for line in records(data))
    assert max(found.values()) == 1
    safe = {answered.request_id for answered in load.answered if answered.at < killed_at - LAST_S}
    assert len(safe) > 5
    assert safe <= set(found)
    # Beyond what the clients know, there can only be what they were being told as it ended.
    assert len(set(found) - {answered.request_id for answered in load.answered}) <= load.unanswered
    (row,) = admin_usage(again, by="").json()["data"]
    assert row["requests"] == len(found)


def test_a_stop_loses_nothing(new_server: NewServer, tmp_path: Path) -> None:
    data = tmp_path / "data"
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    server = new_server(**KEYS, DATA_DIR=str(data), PRICES_FILE=str(prices)).wait_ready()
    loads = [Load(server.url, key, name) for key, name in ((KEY_A, "a"), (KEY_B, "b"))]
    for load in loads:
        load.wait_for(20)
    cancel_one(server)
    reject_one(server)
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    for load in loads:
        load.stop()
    found = {line["request_id"]: line for line in records(data)}
    answered = {one.request_id: one for load in loads for one in load.answered}
    assert set(found) >= set(answered)
    for name, one in answered.items():
        line = found[name]
        assert line["status"] == one.status
        if one.status == 200:
            assert line["outcome"] == "completed"
            assert line["prompt_tokens"] == one.prompt_tokens
            assert line["completion_tokens"] == one.completion_tokens
            fresh = line["prompt_tokens"] - line["cached_tokens"]
            cost = (2 * fresh + line["cached_tokens"] + 10 * line["completion_tokens"]) / 1e6
            assert abs(line["usd"] - cost) < 1e-12
            assert line["priced"] == "2026-11-01"
            assert line["total_ms"] >= line["ttft_ms"] > 0
        else:
            assert (one.status, line["outcome"], line["error_code"]) == (
                503,
                "shed",
                "server_draining",
            )
    others = [line for name, line in found.items() if name not in answered]
    known = {
        "cancelled-one": "cancelled",
        "rejected-one": "rejected",
        "secret-one": "completed",
    }
    assert {n: found[n]["outcome"] for n in known} == known
    assert found["cancelled-one"]["completion_tokens"] > 0
    assert found["rejected-one"]["error_code"] == "model_not_found"
    # Whatever else there is was never answered: the connection went away with the server.
    assert len(others) <= len(known) + sum(load.unanswered for load in loads)
    assert {line["key_id"] for name, line in found.items() if name.startswith("a-")} != {
        line["key_id"] for name, line in found.items() if name.startswith("b-")
    }
    assert list((data / "usage").glob("*.journal")) == []
    for path in (data / "usage").iterdir():
        assert SECRET.encode() not in path.read_bytes()


def cancel_one(server: ServerProcess) -> None:
    """Leave in the middle of a stream, and wait until that has been noticed."""
    headers = {"x-api-key": KEY_A, "x-request-id": "cancelled-one"}
    body = {"model": "bundled", "messages": MESSAGES, "max_tokens": 4000, "stream": True}
    url = f"{server.url}/v1/chat/completions"
    with HTTP.stream("POST", url, json=body | {"ignore_eos": True}, headers=headers) as answer:
        next(answer.iter_lines())
    sample = 'gateway_requests_total{outcome="cancelled",route="/v1/chat/completions"}'
    wait_for(lambda: server.metric(sample) == 1, "the cancellation")


def reject_one(server: ServerProcess) -> None:
    """Ask for what is not there, with a secret in every place a request has."""
    headers = {"x-api-key": KEY_A, "x-request-id": "rejected-one", "user-agent": SECRET}
    body = {"model": SECRET, "user": SECRET, "messages": [{"role": "user", "content": SECRET}]}
    answer = HTTP.post(f"{server.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 404
    body["model"] = "bundled"
    headers["x-request-id"] = "secret-one"
    assert HTTP.post(f"{server.url}/v1/chat/completions", json=body, headers=headers).is_success


def test_two_gateways_and_a_database_that_hangs_dies_and_comes_back(
    new_server: NewServer, postgres: Postgres, database: str, tmp_path: Path
) -> None:
    settings = {
        **KEYS,
        "USAGE_DATABASE_URL": postgres.url(database, SECRET),
        "DATA_DIR": str(tmp_path / "data"),
    }
    servers = [new_server(**settings) for _ in range(2)]
    loads = [
        Load(server.wait_ready().url, key, f"{key[4]}{position}", threads=2)
        for position, server in enumerate(servers)
        for key in (KEY_A, KEY_B)
    ]
    for server in servers:
        wait_for(lambda s=server: s.metric("gateway_usage_database_up") == 1, "the database")
    wait_for(lambda: count_of(postgres, database) > 0, "the first records")
    with postgres.locked("usage_records", database):
        go_on(loads)
    postgres.kill()
    for server in servers:
        wait_for(lambda s=server: s.metric("gateway_usage_database_up") == 0, "the loss")
    go_on(loads)
    postgres.start()
    wait_for(lambda: count_of(postgres, database) > 40, "the ledger to catch up")
    go_on(loads)
    postgres.kill()
    go_on(loads)
    for load in loads:
        load.stop()
    for server in servers:
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert SECRET.encode() not in b"".join(p.read_bytes() for p in tmp_path.rglob("*.journal"))

    postgres.start()
    again = new_server(**settings).wait_ready()
    answered = [one for load in loads for one in load.answered]
    assert {one.status for one in answered} == {200}
    assert sum(load.unanswered for load in loads) == 0
    wait_for(lambda: count_of(postgres, database) >= len(answered), "the journals of both")
    rows = postgres.run("SELECT request_id, outcome FROM usage_records", database)
    assert Counter(rows) == Counter((one.request_id, "completed") for one in answered)
    sums = sorted(
        (row["requests"], row["prompt_tokens"], row["completion_tokens"])
        for row in admin_usage(again, by="key").json()["data"]
    )
    assert sums == sorted(own_sums([a for a in answered if a.request_id[0] == n]) for n in "ab")
    printed = command(tmp_path, "--by", "", "--json", USAGE_DATABASE_URL=postgres.url(database))
    assert json.loads(printed)["data"][0]["requests"] == len(answered)
    told = str(postgres.run("SELECT * FROM usage_records", database))
    assert SECRET not in told + "".join(server.logs() for server in (*servers, again))


def go_on(loads: list[Load]) -> None:
    """All clients go on being answered."""
    before = [len(load.answered) for load in loads]
    for load, count in zip(loads, before, strict=True):
        load.wait_for(count + 8)


def count_of(postgres: Postgres, database: str) -> int:
    return int(postgres.run("SELECT count(*) FROM usage_records", database)[0][0])


def own_sums(answered: list[Answered]) -> tuple[int, int, int]:
    """Requests, prompt tokens and completion tokens, as a client counts them."""
    prompt = sum(one.prompt_tokens for one in answered)
    return len(answered), prompt, sum(one.completion_tokens for one in answered)


def test_one_record_for_each_kind_of_request_and_reports_of_them(
    new_server: NewServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    server = new_server(**KEYS, DATA_DIR=str(data)).wait_ready()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY_A, max_retries=0) as client:
        ids = [run_batch(client), run_in_background(client)]
        client.completions.create(model="bundled", prompt=["a", "b"], max_tokens=3)
    HTTP.get(f"{server.url}/v1/models", headers={"x-api-key": "wrong"})
    wait_for(lambda: caught_up(server), "the ledger")
    found = Counter(
        (line["source"], line["route"], line["outcome"])
        for line in records(data)
        if line["completion_tokens"] or line["outcome"] != "completed"
    )
    assert found == {
        ("batch", "/v1/chat/completions", "completed"): 2,
        ("batch", "/v1/chat/completions", "rejected"): 1,
        ("background", "/v1/responses", "completed"): 1,
        ("http", "/v1/completions", "completed"): 1,
    }
    assert {f"{ids[0]}-1", f"{ids[0]}-2"} <= {line["id"] for line in records(data)}
    check_reports(server, data)


def run_batch(client: openai.OpenAI) -> str:
    """Two lines that work and one that does not; returns the batch's id."""
    lines = [
        {
            "custom_id": f"c{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "bundled", "messages": messages, "max_tokens": 3},
        }
        for number, messages in enumerate([MESSAGES, MESSAGES, "none"])
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", text), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_for(lambda: client.batches.retrieve(batch.id).status == "completed", "the batch")
    return batch.id


def run_in_background(client: openai.OpenAI) -> str:
    response = client.responses.create(
        model="bundled", input="hello", background=True, max_output_tokens=16
    )
    wait_for(lambda: client.responses.retrieve(response.id).status != "queued", "the response")
    wait_for(lambda: client.responses.retrieve(response.id).status != "in_progress", "its end")
    return response.id


def check_reports(server: ServerProcess, data: Path) -> None:
    """The API and the command say the same, as JSON and as CSV, and only to admins."""
    shown = admin_usage(server, by="day,route", organisation="default").json()
    assert shown["by"] == ["day", "route"]
    text = admin_usage(server, by="day,route", format="csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["route"] for row in rows] == [row["route"] for row in shown["data"]]
    assert command(data, "--by", "day,route", "--csv") == text.replace("\r\n", "\n")
    assert json.loads(command(data, "--by", "day,route", "--json"))["data"] == shown["data"]
    assert "/v1/completions" in command(data, "--by", "route")
    for key, status in ((KEY_A, 403), ("wrong", 401)):
        refused = HTTP.get(f"{server.url}/admin/usage", headers={"x-api-key": key})
        assert refused.status_code == status
    wrong = HTTP.get(
        f"{server.url}/admin/usage", params={"by": "size"}, headers={"x-api-key": ADMIN}
    )
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "by")


def command(data: Path, *options: str, **settings: str) -> str:
    """What ``llm-gateway usage`` prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(data),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DATA_DIR": str(data),
        **settings,
    }
    call = [sys.executable, "-m", "gateway", "usage", *options]
    done = subprocess.run(
        call, env=environment, cwd=data, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

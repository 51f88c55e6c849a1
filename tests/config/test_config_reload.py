"""Reloads of a real server: what changes, what does not, and what nobody may notice."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
from pathlib import Path

import httpx
from held_upstream import HeldUpstream
from reloaded_gateway import ADMIN, OTHER, ROUTE, USER, NewGateway, ReloadedGateway
from typer.testing import CliRunner

from gateway.cli import app

SUCCEEDED_AT = "gateway_config_last_reload_success_timestamp_seconds"
Upstreams = tuple[HeldUpstream, HeldUpstream]
STREAMS = 200
RELOADS = 20


def yaml_of(upstream: HeldUpstream, alias: str = "alias", more: str = "") -> str:
    return f"""models:
- name: held
  aliases: ["{alias}"]
  targets: [{{base_url: "{upstream.url}", name: {upstream.name}}}]
{more}"""


async def stream(http: httpx.AsyncClient, model: str) -> tuple[str, str]:
    """The whole text of a streamed answer, and who answered."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    text = ""
    async with http.stream("POST", ROUTE, json=body) as reply:
        assert reply.status_code == 200, await reply.aread()
        target = reply.headers["x-gateway-target"]
        events = [line async for line in reply.aiter_lines() if line.startswith("data: ")]
    assert events.pop() == "data: [DONE]"
    for event in events:
        document = json.loads(event[6:])
        assert "error" not in document, document
        text += "".join(c["delta"].get("content", "") for c in document["choices"])
    return text, target


async def test_streams_go_on_through_reloads(new_gateway: NewGateway, upstreams: Upstreams) -> None:
    one, two = upstreams
    gateway = new_gateway("", yaml_of(one))
    first_hash = gateway.hash()
    limits = httpx.Limits(max_connections=None)
    client = httpx.AsyncClient(
        base_url=gateway.process.url, headers={"x-api-key": ADMIN}, timeout=60, limits=limits
    )
    async with client as connections:
        running = [asyncio.create_task(stream(connections, "held")) for _ in range(STREAMS)]
        while one.held < STREAMS:
            assert not any(task.done() for task in running)
            await asyncio.sleep(0.01)
        short: list[asyncio.Task[tuple[str, str]]] = []
        for number in range(RELOADS):
            more = f"""- name: plain
  targets: [{{base_url: "{two.url}", weight: {number + 1}}}]
"""
            gateway.yaml_file.write_text(yaml_of(two, f"alias{number}", more))
            reload = gateway.reload if number % 2 else gateway.hang_up
            await asyncio.to_thread(reload)
            short.append(asyncio.create_task(stream(connections, "plain")))
        assert not any(task.done() for task in running)
        one.release.set()
        for text, target in await asyncio.gather(*running):
            assert text == "one!", "answers are finished by the target that began them"
            assert target == "one/0"
        for text, _ in await asyncio.gather(*short):
            assert text == "two!"
        assert one.held == 0
        two.release.set()
        assert await stream(connections, "alias19") == ("two!", "two/0")
    assert gateway.ask("alias18").status_code == 404
    assert gateway.ask("alias").status_code == 404
    metrics = gateway.metrics()
    assert metrics['gateway_config_reloads_total{outcome="applied"}'] == RELOADS
    assert metrics['gateway_config_reloads_total{outcome="failed"}'] == 0
    assert gateway.hash() != first_hash
    assert metrics[f'gateway_config_info{{hash="{gateway.hash()}"}}'] == 1
    entries = gateway.admin("GET", "/admin/audit").json()["data"]
    noted = [entry for entry in entries if entry["action"] == "config.reload"]
    assert len(noted) == RELOADS
    assert {entry["actor"] for entry in noted} > {"signal:SIGHUP"}
    assert noted[0]["after"]["models.held.aliases"] == ["alias19"]
    assert noted[0]["before"]["models.held.aliases"] == ["alias18"]


PRICES = "{{date: {day}, source: tests, models: {{'*': {{input: {usd}, output: 0}}}}}}"
NARROW = '{"default_key": {"requests_per_day": 1}}'


def test_what_a_reload_takes_and_what_it_leaves(new_gateway: NewGateway, tmp_path: Path) -> None:
    price_file = tmp_path / "prices.yaml"
    price_file.write_text(PRICES.format(day="2026-01-01", usd=1))
    gateway = new_gateway(
        f"API_KEYS={USER}\nMAX_NUM_SEQS=4\nSERVED_MODEL_NAME=tiny,first\nADMIN_PORT=0\n"
        f"PRICES_FILE={price_file}\n"
    )
    assert gateway.ask("first", USER).status_code == 200
    assert gateway.ask("first", OTHER).status_code == 401
    before = gateway.hash()

    price_file.write_text(PRICES.format(day="2026-02-02", usd=2))
    gateway.env_file.write_text(
        f"API_KEYS={OTHER}\nMAX_NUM_SEQS=8\nSERVED_MODEL_NAME=tiny,second\nADMIN_PORT=0\n"
        f"PRICES_FILE={price_file}\nLIMITS='{NARROW}'\nMAX_BODY_BYTES=2048\nLOG_LEVEL=debug\n"
    )
    pending = gateway.admin("GET", "/admin/config/pending").json()
    command = ["config", "diff", "--url", gateway.admin_url, "--key", ADMIN]
    lines = CliRunner().invoke(app, command).output.splitlines()
    assert "restart  MAX_NUM_SEQS: 4 -> 8" in lines
    assert len(lines) == 8
    assert gateway.hash() == before, "looking changes nothing"
    done = gateway.reload()
    assert done["previous_hash"] == before
    assert done["hash"] == gateway.hash() != before
    for found in (pending, done):
        changed = {change["name"]: change for change in found["changed"]}
        assert set(changed) == {
            "API_KEYS",
            "LIMITS.default_key.requests_per_day",
            "LOG_LEVEL",
            "MAX_BODY_BYTES",
            "SERVED_MODEL_NAME",
            "prices.*",
            "prices.date",
        }
        assert [change["name"] for change in found["requires_restart"]] == ["MAX_NUM_SEQS"]
        assert changed["MAX_BODY_BYTES"]["after"] == 2048
        assert USER not in json.dumps(found)
        assert OTHER not in json.dumps(found)

    assert gateway.ask("second", USER).status_code == 401
    assert gateway.ask("first", OTHER).status_code == 404
    assert gateway.ask("second", OTHER, user="x" * 4096).status_code == 413
    assert gateway.ask("second", OTHER).status_code == 200
    assert gateway.ask("second", OTHER).status_code == 429
    listed = gateway.admin("GET", "/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["tiny", "second"]
    # What waits for a restart goes on waiting.
    again = gateway.reload()
    assert again["changed"] == []
    assert [change["name"] for change in again["requires_restart"]] == ["MAX_NUM_SEQS"]
    values = {v["name"]: v for v in gateway.admin("GET", "/admin/config").json()["settings"]}
    assert values["MAX_NUM_SEQS"] == {"name": "MAX_NUM_SEQS", "value": 4, "source": ".env"}
    assert values["API_KEYS"]["value"] == ["**********"]
    assert values["ADMIN_KEYS"]["source"] == "environment"
    assert values["prices.date"] == {
        "name": "prices.date",
        "value": "2026-02-02",
        "source": str(price_file),
    }
    check_that_faults_change_nothing(gateway)
    check_ports(gateway)


def check_that_faults_change_nothing(gateway: ReloadedGateway) -> None:
    before = gateway.hash()
    succeeded_at = gateway.metrics()[SUCCEEDED_AT]
    good = gateway.env_file.read_text()
    # One line that could be taken, and two that cannot be.
    gateway.env_file.write_text(f"{good}\nSSE_PING_S=7\nPORTT=1\nDRAIN_TIMEOUT_S=-1\n")
    reply = gateway.admin("POST", "/admin/config/reload")
    assert reply.status_code == 409
    message = reply.json()["error"]["message"]
    assert "PORTT: no such setting" in message
    assert "DRAIN_TIMEOUT_S" in message
    failed = gateway.reloads("failed")
    gateway.hang_up()
    assert gateway.reloads("failed") == failed + 1
    assert gateway.hash() == before
    assert gateway.metrics()[SUCCEEDED_AT] == succeeded_at
    lines = [line for line in gateway.process.log_lines() if "not reloaded" in line["message"]]
    assert "PORTT" in lines[-1]["cause"]
    assert lines[-1]["actor"] == "signal:SIGHUP"
    values = {v["name"]: v for v in gateway.admin("GET", "/admin/config").json()["settings"]}
    assert values["SSE_PING_S"]["value"] == 0
    gateway.env_file.write_text(good)
    assert gateway.reload()["changed"] == []


def check_ports(gateway: ReloadedGateway) -> None:
    """The operators' routes are on their own port only, probes on both."""
    for path in ("/metrics", "/admin/config", "/admin/keys", "/admin/nothing"):
        assert gateway.public("GET", path).status_code == 404, path
        assert gateway.public("GET", path, key="").status_code == 401, path
    assert gateway.public("POST", "/admin/config/reload").status_code == 404
    for path in ("/v1/models", "/version", "/openapi.json"):
        assert gateway.public("GET", path).status_code == 200, path
    paths = gateway.public("GET", "/openapi.json").json()["paths"]
    assert ROUTE in paths
    assert not [path for path in paths if path.startswith(("/admin", "/metrics"))]
    for path in ("/metrics", "/admin/config", "/admin/keys", "/version"):
        assert gateway.on_admin_port("GET", path).status_code == 200, path
        assert gateway.on_admin_port("GET", path, key="").status_code == 401, path
    for path in ("/v1/models", "/openapi.json", "/docs", "/"):
        assert gateway.on_admin_port("GET", path).status_code == 404, path
    assert gateway.on_admin_port("POST", ROUTE).status_code == 404
    for path in ("/health", "/health/live", "/health/ready", "/health/startup"):
        assert gateway.public("GET", path, key="").status_code == 200
        assert gateway.on_admin_port("GET", path, key="").status_code == 200
    # A stored or environment key without the right is nobody's admin on either port.
    assert gateway.on_admin_port("POST", "/admin/config/reload", key=OTHER).status_code == 403


def check_that_requests_keep_their_settings(gateway: ReloadedGateway) -> None:
    """One whose body comes in slowly is read by the rules of its beginning."""
    body = json.dumps({"model": "here", "messages": [{"role": "user", "content": "a"}], "no": 1})
    connection = http.client.HTTPConnection("127.0.0.1", gateway.process.port, timeout=60)
    connection.putrequest("POST", ROUTE)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(body)))
    connection.putheader("x-api-key", ADMIN)
    connection.endheaders(body[:9].encode())
    gateway.process.wait_for(
        lambda: gateway.metrics()["gateway_requests_in_flight"] == 1, "the request to be read"
    )
    gateway.env_file.write_text("STRICT_PARAMETERS=true\n")
    assert [change["name"] for change in gateway.reload()["changed"]] == ["STRICT_PARAMETERS"]
    assert gateway.ask("here", no=1).status_code == 400
    connection.send(body[9:].encode())
    assert connection.getresponse().status == 200
    connection.close()


def test_engines_wait_for_a_restart_and_models_move(
    new_gateway: NewGateway, upstreams: Upstreams
) -> None:
    one, two = upstreams
    engine = "{engine: fake, engine_options: {text: here}, name: own, max_model_len: %d}"

    def yaml(length: int, weights: tuple[float, float], first: HeldUpstream) -> str:
        return f"""models:
- name: here
  targets: [{engine % length}]
- {{name: a, targets: [{{base_url: "{first.url}", name: a}}]}}
- {{name: b, targets: [{{base_url: "{two.url}", name: b}}]}}
- name: canary
  split:
    sticky: none
    shares: [{{model: a, weight: {weights[0]}}}, {{model: b, weight: {weights[1]}}}]
"""

    gateway = new_gateway("", yaml(512, (1, 0), one))

    def answers(model: str) -> set[str]:
        replies = [gateway.ask(model) for _ in range(8)]
        return {reply.json()["choices"][0]["message"]["content"] for reply in replies}

    assert answers("canary") == {"one"}
    gateway.yaml_file.write_text(yaml(512, (0, 1), one))
    done = gateway.reload()
    assert {change["name"] for change in done["changed"]} == {"models.canary.split.shares"}
    assert answers("canary") == {"two"}

    gateway.yaml_file.write_text(yaml(256, (1, 0), two))
    done = gateway.reload()
    assert done["changed"] == [], "the file is taken as a whole or not at all"
    waiting = {change["name"]: change for change in done["requires_restart"]}
    assert waiting["models.here.targets.own.engine.max_model_len"]["after"] == 256
    assert {"models.canary.split.shares", "models.a.targets.a.discovery.urls"} <= set(waiting)
    assert answers("canary") == {"two"}
    assert answers("here") == {"here"}

    gateway.yaml_file.write_text(yaml(512, (0, 1), one))
    check_that_requests_keep_their_settings(gateway)
    gateway.yaml_file.write_text(yaml(512, (1, 0), two).replace("name: here", "name: here, x: 1"))
    assert gateway.admin("POST", "/admin/config/reload").status_code == 409
    gateway.yaml_file.write_text("models: [")
    assert gateway.admin("POST", "/admin/config/reload").status_code == 409
    gateway.yaml_file.unlink()
    message = gateway.admin("POST", "/admin/config/reload").json()["error"]["message"]
    assert "gateway.yaml cannot be read" in message
    assert answers("canary") == {"two"}
    assert gateway.reloads("failed") == 3

    gateway.process.signal(signal.SIGTERM)
    assert gateway.process.wait_exit() == 0

"""Hooks in a server that is asked over every protocol."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from server_process import PATIENCE_S, ServerProcess

from gateway.hooks.load import load_hooks
from gateway.settings import SettingsError, load_settings

TEXT = "Write to ann@example.com or pay 4111 1111 1111 1111 now."
SHOWN = "Write to [redacted] or pay [redacted] now."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("hooked")
    shutil.copy(Path(__file__).with_name("hook_probe.py"), folder)
    running = ServerProcess(
        folder,
        options={"text": TEXT},
        HOOKS="hook_probe:Probe, redact",
        HOOK_OPTIONS=json.dumps({"hook_probe:Probe": {"file": str(folder / "seen.jsonl")}}),
        HOOK_TIMEOUT_S="0.3",
        SERVED_MODEL_NAME="m,trips",
        RESPONSE_CACHE="auto",
    )
    try:
        yield running.wait_ready()
    finally:
        running.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def noted(server: ServerProcess, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the hook has noted of an answer, once it has."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        file = server.folder / "seen.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        if found := [entry for entry in map(json.loads, lines) if wanted(entry)]:
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"nothing was noted\n{server.logs()}")


def test_every_protocol_gives_the_rewritten_text(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    whole = client.chat.completions.create(model="m", messages=user("hi"), n=2)
    assert [choice.message.content for choice in whole.choices] == [SHOWN, SHOWN]
    chunks = list(client.chat.completions.create(model="m", messages=user("hi"), stream=True))
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == SHOWN
    assert chunks[-1].choices[0].finish_reason == "stop"
    done = client.completions.create(model="m", prompt=["a", "b"], max_tokens=500)
    assert [choice.text for choice in done.choices] == [SHOWN, SHOWN]
    parts = client.completions.create(model="m", prompt="a", max_tokens=500, stream=True)
    assert "".join(part.choices[0].text for part in parts) == SHOWN
    answered = client.responses.create(model="m", input="hi")
    assert answered.output_text == SHOWN
    assert client.responses.retrieve(answered.id).output_text == SHOWN
    with client.responses.stream(model="m", input="hi") as stream:
        assert stream.get_final_response().output_text == SHOWN
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as claude:
        message = claude.messages.create(model="m", max_tokens=500, messages=user("hi"))
        assert message.content[0].text == SHOWN  # type: ignore[union-attr]
        with claude.messages.stream(model="m", max_tokens=500, messages=user("hi")) as events:
            assert "".join(events.text_stream) == SHOWN


def test_a_batch_passes_them_as_well(client: openai.OpenAI) -> None:
    lines = [
        {
            "custom_id": word,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": user(word)},
        }
        for word in ("hi", "forbidden")
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    limit = time.monotonic() + PATIENCE_S
    while batch.status not in ("completed", "failed"):
        assert time.monotonic() < limit, batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    good = json.loads(client.files.content(batch.output_file_id).text)
    assert good["response"]["body"]["choices"][0]["message"]["content"] == SHOWN
    bad = json.loads(client.files.content(batch.error_file_id).text)
    assert bad["response"]["body"]["error"]["code"] == "not_here"


def test_a_request_is_changed_refused_or_failed(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    long = "please shorten " * 20
    changed = client.chat.completions.create(model="m", messages=user(long))
    plain = client.chat.completions.create(model="m", messages=user("x"))
    assert changed.usage is not None
    assert plain.usage is not None
    assert changed.usage.prompt_tokens == plain.usage.prompt_tokens
    assert changed.usage.completion_tokens == 4
    assert client.completions.create(model="m", prompt=long).usage.prompt_tokens == 1  # type: ignore[union-attr]
    with pytest.raises(openai.PermissionDeniedError, match="not talked about") as refused:
        client.chat.completions.create(model="m", messages=user("forbidden"))
    assert refused.value.code == "not_here"
    for word in ("crash", "slow", "spoil"):
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model="m", messages=user(word))
        assert failed.value.code == "hook_failed"
        assert "secret of the hook" not in str(failed.value)
        assert failed.value.response.headers["x-request-id"] in failed.value.message
    claude = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)
    with claude, pytest.raises(anthropic.PermissionDeniedError, match="not talked about"):
        claude.messages.create(model="m", max_tokens=9, messages=user("forbidden"))
    metric = 'gateway_hook_interventions_total{hook="hook_probe:Probe",outcome="%s"}'
    assert server.metric(metric % "failed") == 3
    assert server.metric(metric % "refused") >= 2
    logged = [line for line in server.log_lines() if line["message"] == "a hook failed"]
    assert len(logged) == 3
    assert "secret of the hook" not in server.logs()


def test_a_hook_that_fails_amid_an_answer_ends_it(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    body = {"model": "trips", "messages": user("hi")}
    whole = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert (whole.status_code, whole.json()["error"]["code"]) == (500, "hook_failed")
    headers = {"x-request-id": "tripped"}
    stream = httpx.post(
        f"{server.url}/v1/chat/completions", json={**body, "stream": True}, headers=headers
    )
    # What the first hook let pass was still held back by the second.
    assert stream.status_code == 200
    assert "hook_failed" in stream.text
    assert "Write" not in stream.text
    entry = noted(server, lambda entry: entry["request_id"] == "tripped")
    assert (entry["texts"], entry["reasons"]) == ([""], [None])
    done = httpx.post(
        f"{server.url}/v1/completions", json={"model": "trips", "prompt": "x", "max_tokens": 99}
    )
    assert (done.status_code, done.json()["error"]["code"]) == (500, "hook_failed")
    again = client.chat.completions.create(model="m", messages=user("hi"))
    assert again.choices[0].message.content == SHOWN


def test_answers_are_shown_as_they_were_sent(server: ServerProcess) -> None:
    headers = {"x-request-id": "shown-later"}
    body = {"model": "m", "messages": user("hi"), "temperature": 0}
    for _ in range(2):  # a cache of answers would give the second one, unseen
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers)
        assert "x-gateway-cache" not in reply.headers
    usage = reply.json()["usage"]
    entry = noted(server, lambda entry: entry["request_id"] == "shown-later")
    assert entry["texts"] == [SHOWN]
    assert entry["reasons"] == ["stop"]
    assert entry["tokens"] == [usage["prompt_tokens"], usage["completion_tokens"]]


@pytest.mark.parametrize("field", ["logprobs", "return_token_ids"])
def test_texts_do_not_get_out_another_way(server: ServerProcess, field: str) -> None:
    for path, prompt in (
        ("chat/completions", {"messages": user("x")}),
        ("completions", {"prompt": "x"}),
    ):
        value: Any = 1 if (field, path) == ("logprobs", "completions") else True
        body = {"model": "m", **prompt, field: value}
        reply = httpx.post(f"{server.url}/v1/{path}", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == field


def test_an_installed_plug_in_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugged.py").write_text(
        "from gateway.hooks import Hook\n"
        "class Plugged(Hook):\n"
        "    def __init__(self, level=0): self.level = level\n"
    )
    info = tmp_path / "plugged-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[llm_gateway.hooks]\nmine = plugged:Plugged\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = dict(load_hooks(["mine", "redact"], {"mine": {"level": 3}}))
    assert list(found) == ["mine", "redact"]
    assert found["mine"].level == 3  # type: ignore[attr-defined]


def test_hooks_that_cannot_be_used_stop_the_start() -> None:
    for hooks, options, says in (
        ("nothing_like_it", {}, "no installed plug-in"),
        ("no.such.module:x", {}, "No module named"),
        ("json:nothing", {}, "no attribute"),
        ("json:dumps", {}, "TypeError"),
        ("builtins:dict", {}, "version None"),
        ("redact", {"redact": {"patterns": ["a+"]}}, "bound its repetitions"),
        ("redact", {"other": {}}, "HOOKS does not name 'other'"),
    ):
        with pytest.raises(SettingsError, match=says):
            load_settings(hooks=hooks, hook_options=options)
    assert [name for name, _ in load_hooks(["redact"], {})] == ["redact"]

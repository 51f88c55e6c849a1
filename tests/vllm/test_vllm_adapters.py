"""LoRA adapters over HTTP: the gateway around the shared engine, which has one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engine.vllm.engine import VllmEngine
from gateway.app import build_app
from gateway.control.new_fleet import build_fleet
from gateway.settings import Settings
from gateway.state import new_state

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]
CHAT = {"messages": [{"role": "user", "content": "Hello! Who are you?"}]}


class Running:
    """The shared engine, as one that neither its start nor its end concerns."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine

    async def start(self) -> None:
        await self._engine.check_health()

    async def stop(self, drain_s: float) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest_asyncio.fixture(loop_scope="session")
async def client(
    engine: VllmEngine, model: Path, adapter: Path, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        _env_file=None,
        engine="vllm",
        model_name=str(model),
        lora_modules={"loud": str(adapter)},
        data_dir=tmp_path / "data",
        response_cache="auto",
    )
    state = new_state(settings)
    running: Any = Running(engine)
    fleet = state.lifecycle.fleet = build_fleet(state.live.current, lambda config: running)
    await fleet.start()
    app: Any = httpx.ASGITransport(build_app(state))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1", timeout=120) as http:
        yield http
    await fleet.stop(0)
    await state.lifecycle.end()
    fleet.close()


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    fixed = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
    if path == "/v1/responses":
        fixed = {"max_output_tokens": 12, "temperature": 0}
    reply = await client.post(path, json=fixed | body)
    assert reply.status_code == 200, reply.text
    return reply


async def test_adapters_are_listed_with_their_model(client: httpx.AsyncClient, model: Path) -> None:
    cards = {card["id"]: card for card in (await client.get("/v1/models")).json()["data"]}
    assert set(cards) == {model.name, "loud"}
    assert cards["loud"]["parent"] == model.name
    assert "parent" not in cards[model.name]


async def test_an_adapter_is_asked_for_as_a_model(client: httpx.AsyncClient, model: Path) -> None:
    async def text(name: str) -> str:
        answer = (await ask(client, "/v1/chat/completions", model=name, **CHAT)).json()
        assert answer["model"] == name
        return str(answer["choices"][0]["message"]["content"])

    # Answers may come from the cache, but never from another adapter's.
    names = (model.name, "loud", model.name, "loud")
    plain, loud, again, louder = await asyncio.gather(*map(text, names))
    assert plain == again != loud == louder
    assert [await text(name) for name in names] == [plain, loud, plain, loud]

    stream = await ask(client, "/v1/chat/completions", model="loud", stream=True, **CHAT)
    lines = [line[6:] for line in stream.text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    assert {chunk["model"] for chunk in chunks} == {"loud"}
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == loud


async def test_every_api_takes_it(client: httpx.AsyncClient, model: Path) -> None:
    async def continued(name: str) -> str:
        answer = (await ask(client, "/v1/completions", model=name, prompt=["Hello", "Bye"])).json()
        assert answer["model"] == name
        return "|".join(choice["text"] for choice in answer["choices"])

    assert await continued("loud") != await continued(model.name)
    said = (await ask(client, "/v1/responses", model="loud", input="Hello")).json()
    assert said["model"] == "loud"
    message = (await ask(client, "/v1/messages", model="loud", **CHAT)).json()
    assert message["model"] == "loud"

"""A replica without Ray: what ASGI's lifespan events do to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.ray.replica import Replica
from engine.base import EngineError

KEY = "key-of-the-ray-tests"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings of a fake model; a replica takes the log over, which is given back."""
    settings = {"ENGINE": "fake", "API_KEYS": KEY, "DATA_DIR": str(tmp_path / "data")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Front:
    """What a server does with an application."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._life = asyncio.create_task(
            replica({"type": "lifespan"}, self._events.get, self._said.put)
        )

    async def tell(self, event: str) -> dict[str, Any]:
        """The application's answer to a lifespan event."""
        await self._events.put({"type": f"lifespan.{event}"})
        answer: dict[str, Any] = await self._said.get()
        return answer

    async def ended(self) -> None:
        await self._life


@asynccontextmanager
async def started() -> AsyncIterator[Front]:
    """A replica between startup and shutdown."""
    front = Front(Replica())
    assert await front.tell("startup") == {"type": "lifespan.startup.complete"}
    try:
        yield front
    finally:
        assert await front.tell("shutdown") == {"type": "lifespan.shutdown.complete"}
        await front.ended()


def client(replica: Replica) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=replica),
        base_url="http://127.0.0.1",
        headers={"authorization": f"Bearer {KEY}", "x-request-id": "mine"},
    )


async def test_a_replica_answers_between_startup_and_shutdown() -> None:
    async with started() as front, client(front.replica) as http:
        await front.replica.check_health()
        body = {"max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}
        answer = await http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert "x-request-id" not in answer.headers  # Ray Serve's own stands there
    with pytest.raises(EngineError, match="draining"):
        await front.replica.check_health()


async def test_a_dead_engine_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_OPTIONS", '{"die_after_tokens": 1}')
    monkeypatch.setenv("RESTART_DELAY_S", "60")
    async with started() as front, client(front.replica) as http:
        body = {"max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 503
        with pytest.raises(EngineError, match="engine_dead"):
            await front.replica.check_health()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"API_KEYS": ""}, "there is no API key: set API_KEYS"),
        ({"ADMIN_PORT": "9000"}, "ADMIN_PORT=9000: under Ray Serve a gateway binds no port"),
        ({"MAX_NUM_SEQS": "-1"}, "MAX_NUM_SEQS"),
        ({"ENGINE_OPTIONS": '{"start_error": "no memory left"}'}, "no memory left"),
        ({"CONFIG_FILE": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
async def test_a_start_that_fails_says_why(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    front = Front(Replica())
    answer = await front.tell("startup")
    assert answer["type"] == "lifespan.startup.failed"
    assert message in answer["message"]
    await front.ended()


async def test_a_websocket_is_closed() -> None:
    said: asyncio.Queue[Any] = asyncio.Queue()
    await Replica()({"type": "websocket"}, asyncio.Queue().get, said.put)
    assert said.get_nowait() == {"type": "websocket.close", "code": 1003}

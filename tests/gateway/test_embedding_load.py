"""Requests for embeddings count into the load of the replica that makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from encoder_checkpoints import word_piece
from server_process import PATIENCE_S
from table_encoder import write_table_encoder

from engine.registry import build_engine
from gateway.app import build_app
from gateway.control.gate import Gate, Work
from gateway.control.new_fleet import build_fleet
from gateway.control.replica import Replica
from gateway.settings import Settings
from gateway.state import new_state

ROUTE = "/v1/embeddings"


class Waiting:
    """The last guard of the gate: work stays there, with nothing in an engine yet."""

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.open = asyncio.Event()

    @asynccontextmanager
    async def hold(self, work: Work) -> AsyncIterator[None]:
        self.work.append(work)
        await self.open.wait()
        yield

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.work) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Waiting, list[Replica]]]:
    """Two replicas of one encoder behind a gate where work waits."""
    model = write_table_encoder(
        tmp_path / "table", word_piece(), vocabulary=300, dimension=8, longest=64
    )
    settings = Settings(
        _env_file=None,
        model_name=str(model),
        engine="onnx",
        onnx_threads=1,
        replicas=2,
        data_dir=tmp_path / "data",
    )
    state = new_state(settings)
    waiting = Waiting()
    state = replace(state, gate=Gate((*state.gate.guards, waiting)))
    fleet = state.lifecycle.fleet = build_fleet(state.live.current, build_engine)
    await fleet.start()
    app: Any = httpx.ASGITransport(build_app(state))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as client:
        yield client, waiting, fleet.pools[0].replicas
    await fleet.stop(0)
    await state.lifecycle.end()
    fleet.close()


async def test_the_replica_with_less_to_do_is_taken(
    served: tuple[httpx.AsyncClient, Waiting, list[Replica]],
) -> None:
    client, waiting, replicas = served

    def ask(ids: list[int]) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(client.post(ROUTE, json={"input": ids}))

    asked = [ask([5] * 60)]
    await waiting.until(1)
    # Neither engine has anything to do yet, so it is the expected tokens that decide.
    for _ in range(3):
        asked.append(ask([5] * 10))
        await waiting.until(len(asked))
    assert [replica.tokens for replica in replicas] == [60, 30]
    leaving = asked.pop()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert [replica.tokens for replica in replicas] == [60, 20]
    waiting.open.set()
    answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * 3, json.dumps(answers[0].json())
    targets = [answer.headers["x-gateway-target"] for answer in answers]
    assert [target.rpartition("/")[2] for target in targets] == ["0", "1", "1"]
    assert [replica.tokens for replica in replicas] == [0, 0]

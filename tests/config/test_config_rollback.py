"""The exchange itself, with a part that refuses its new values."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from held_upstream import HeldUpstream

from gateway.config.hangups import Hangups
from gateway.config.reloader import SIGNAL, Reloader
from gateway.config.snapshot import ConfigInvalid, read_snapshot
from gateway.control.fleet import Fleet
from gateway.control.gate import Used, Work
from gateway.control.limits.windows import NANO
from gateway.control.new_fleet import build_fleet
from gateway.control.pool import RemoteRoute
from gateway.control.rights import Limits, Principal, Rights
from gateway.errors import ModelLoading, ServerDraining
from gateway.settings import Settings
from gateway.state import GatewayState, new_state

KEY, OTHER = "the-first-key-of-the-tests", "the-other-key-of-the-tests"
PRICES = "{{date: 2026-01-01, source: tests, models: {{'*': {{input: {usd}, output: 0}}}}}}"


class Served:
    """A state with a fleet of one remote model, and a reloader of it."""

    def __init__(self, upstream: HeldUpstream) -> None:
        self.upstream = upstream
        self.write(weight=1, usd=1, env=f"API_KEYS={KEY}\nLOG_LEVEL=info")
        snapshot = read_snapshot()
        self.state: GatewayState = new_state(snapshot.settings, snapshot.sources)
        self.levels: list[str] = []
        self.reloader = Reloader(self.state, read_snapshot, self._set_level)

    def write(self, *, weight: int, usd: float, env: str) -> None:
        Path("gateway.yaml").write_text(
            f"models: [{{name: m, targets: [{{base_url: '{self.upstream.url}', weight: {weight}, "
            f"timeouts: {{idle: {weight}}}}}]}}]"
        )
        Path("prices.yaml").write_text(PRICES.format(usd=usd))
        Path(".env").write_text(f"CONFIG_FILE=gateway.yaml\nPRICES_FILE=prices.yaml\n{env}\n")

    async def start(self) -> Fleet:
        def no_engine(_: object) -> None:
            raise AssertionError("no engine is needed")

        fleet = build_fleet(self.state.live.current, no_engine)  # type: ignore[arg-type]
        self.state.lifecycle.fleet = fleet
        await fleet.start()
        self.state.lifecycle.begin()
        return fleet

    async def stop(self) -> None:
        assert self.state.lifecycle.fleet is not None
        await self.state.lifecycle.fleet.stop(0)
        await self.state.lifecycle.end()

    def _set_level(self, level: str) -> None:
        self.levels.append(level)
        if level == "debug":
            raise OSError("no")


@pytest.fixture
def served(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    upstreams: tuple[HeldUpstream, HeldUpstream],
) -> Served:
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return Served(upstreams[0])


def opens(state: GatewayState, key: str) -> bool:
    try:
        state.keyring.identify({b"x-api-key": key.encode()})
    except Exception:
        return False
    return True


async def test_a_fault_in_the_exchange_puts_everything_back(served: Served) -> None:
    state = served.state
    fleet = await served.start()
    before, table, prices = state.live.current, state.limiter.table, state.prices
    served.write(weight=2, usd=2, env=f"API_KEYS={OTHER}\nLOG_LEVEL=debug\nRESPONSE_CACHE=off")
    with pytest.raises(OSError, match="no"):
        await served.reloader.reload(SIGNAL)
    assert served.levels == ["debug", "info"]
    assert state.live.current is before
    assert state.prices is prices
    assert state.limiter.table == table
    assert state.answers.policy.mode == "ask"
    assert state.lifecycle.fleet is fleet
    assert opens(state, KEY)
    assert not opens(state, OTHER)
    assert state.live.reloads == {"applied": 0, "unchanged": 0, "failed": 1}

    served.write(weight=2, usd=2, env=f"API_KEYS={OTHER}\nRESPONSE_CACHE=off")
    await served.reloader.reload(SIGNAL)
    assert state.answers.policy.mode == "off"
    assert opens(state, OTHER)
    assert not opens(state, KEY)
    assert state.lifecycle.fleet is not fleet
    await served.stop()


async def test_targets_are_kept_until_their_last_request_has_ended(served: Served) -> None:
    state = served.state
    first = await served.start()
    with state.lifecycle.admit() as fleet:
        served.write(weight=2, usd=2, env=f"API_KEYS={KEY}")
        await served.reloader.reload(SIGNAL)
        served.write(weight=3, usd=2, env=f"API_KEYS={KEY}")
        await served.reloader.reload(SIGNAL)
        assert fleet is first
        present = state.lifecycle.loaded_fleet()
        assert present is not first
        assert present.pools[0].remotes[0] is not first.pools[0].remotes[0]
        # A target that nobody uses lets go of its connections; one that is in use does not.
        await asyncio.sleep(0.05)
        assert not stopped(first)
    async with asyncio.timeout(60):
        while not stopped(first):
            await asyncio.sleep(0.01)
    assert not stopped(present)
    await served.stop()
    assert stopped(present)


def stopped(fleet: Fleet) -> bool:
    """Whether the only server of the only model has let go of its connections."""
    return all(upstream.connections._closed for upstream in fleet.pools[0].upstreams)


async def test_work_is_settled_at_the_prices_it_began_with(served: Served) -> None:
    state = served.state
    fleet = await served.start()
    principal = Principal("key_1", "", rights=Rights(limits=Limits(usd_per_day=10)))
    work = Work(
        request_id="r",
        principal=principal,
        model="m",
        route=RemoteRoute("m", degraded=False, pool=fleet.pools[0]),
        prompt_tokens=1_000_000,
        max_tokens=1,
        is_capped=True,
        choices=1,
        priority=0,
        deadline=None,
        used=Used(),
        anthropic=False,
    )
    async with state.limiter.hold(work):
        served.write(weight=1, usd=5, env=f"API_KEYS={KEY}")
        await served.reloader.reload(SIGNAL)
        assert state.prices.usd("m", 1_000_000, 0, 0) == 5
        work.used.prompt_tokens = 1_000_000
    (counter,) = state.limiter.book.counters.values()
    assert sum(counter.used.values()) == NANO, "one dollar, as when it began"
    await served.stop()


async def test_no_reload_before_it_serves_or_while_it_ends(served: Served) -> None:
    with pytest.raises(ModelLoading):
        await served.reloader.reload(SIGNAL)
    await served.start()
    Path("gateway.yaml").unlink()
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        await served.reloader.reload(SIGNAL)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        await served.reloader.pending()
    served.state.lifecycle.draining = True
    with pytest.raises(ServerDraining):
        await served.reloader.reload(SIGNAL)
    await served.stop()


async def test_a_signal_waits_until_the_server_is_ready(served: Served) -> None:
    stopped_by: list[str] = []
    hangups = Hangups(served.reloader, served.state.lifecycle, lambda: stopped_by.append("signal"))
    hangups.start(asyncio.get_running_loop())
    before = served.state.live.current
    served.write(weight=1, usd=3, env=f"API_KEYS={KEY}")
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    assert served.state.live.current is before
    await served.start()
    async with asyncio.timeout(60):
        while not served.state.live.reloads["applied"]:
            await asyncio.sleep(0.01)
    assert served.state.prices.usd("m", 1_000_000, 0, 0) == 3
    assert not stopped_by
    await served.state.lifecycle.drain()
    await served.stop()


async def test_a_terminal_that_closes_ends_the_server(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = [True]
    monkeypatch.setattr(os, "isatty", lambda _: terminal[0])
    ended = asyncio.Event()
    hangups = Hangups(served.reloader, served.state.lifecycle, ended.set)
    await served.start()
    hangups.start(asyncio.get_running_loop())
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(60):
        while not sum(served.state.live.reloads.values()):
            await asyncio.sleep(0.01)
    assert not ended.is_set()
    terminal[0] = False
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(60):
        await ended.wait()
    await served.state.lifecycle.drain()
    await served.stop()

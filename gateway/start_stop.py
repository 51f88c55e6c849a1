"""Starts and ends what answers behind a front, whichever front that is: uvicorn in
``gateway.server``, Ray Serve in ``deploy.ray``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time

from engine.base import EngineError, EngineStartError, ModelInfo
from gateway.control.fleet import BuildEngine, Pool
from gateway.control.new_fleet import build_fleet
from gateway.lifecycle import Lifecycle
from gateway.routing.metrics import target_metrics
from gateway.state import GatewayState

log = logging.getLogger("gateway.server")

# After the drain, for what ended streams still have to send.
FLUSH_S = 2.0


async def start_models(state: GatewayState, build: BuildEngine) -> list[ModelInfo]:
    """Build and start every engine; what answers then is told.

    Raises EngineStartError, whose message is for the operator, whatever went wrong.
    """
    lifecycle = state.lifecycle
    try:
        fleet = build_fleet(state.live.current, build)
        lifecycle.fleet = fleet
        lifecycle.metrics.sources.append(lambda: target_metrics(present_pools(lifecycle)))
        for pool in fleet.pools:
            lifecycle.metrics.models[pool.names[0]]  # its series exist from the start
        state.admission.expect(fleet.pools)
        await fleet.start()
    except EngineStartError:
        raise
    except Exception as error:
        log.error("the engine failed to start", exc_info=error)
        raise EngineStartError(
            f"The engine failed to start with {type(error).__name__}; see the log above."
        ) from error
    # What is loaded now stays; keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    return [replica.info for replica in fleet.models()]


async def end_models(state: GatewayState) -> None:
    """Let running requests finish within DRAIN_TIMEOUT_S, end the others, free the engines."""
    lifecycle = state.lifecycle
    timeout_s = state.settings.drain_timeout_s
    lifecycle.drain_until = time.time() + timeout_s
    await lifecycle.drain()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await lifecycle.wait_idle()
    state.admission.close()
    if lifecycle.fleet is not None:
        with contextlib.suppress(EngineError):
            await lifecycle.fleet.stop(0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_S):
            await lifecycle.wait_idle()
    await lifecycle.end()
    lifecycle.close()


async def close_accounts(state: GatewayState) -> None:
    """Write what was counted; requests are refused, and counted, up to this point."""
    await state.ledger.close()
    if state.tracing is not None:
        await state.tracing.close()


def present_pools(lifecycle: Lifecycle) -> list[Pool]:
    """What is served now; a reload may exchange it."""
    return lifecycle.fleet.pools if lifecycle.fleet is not None else []

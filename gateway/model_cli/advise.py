"""``llm-gateway model advise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.plan_cli import CALIBRATION
from gateway.terminal import fail

EXAMPLES = """Examples:

llm-gateway model advise ./Llama-3.1-8B --gpu a100-80

llm-gateway model advise config.json --gpu l4 --input 2000 --output 300

llm-gateway model advise bundled --gpu cpu --calibrate --streams 1
"""


def advise(
    model: Annotated[
        str, typer.Argument(help="A folder, a hub id, a config.json alone, or bundled.")
    ],
    gpu: Annotated[str, typer.Option(help="GPU type such as l4 or h100; cpu: the ONNX engine.")],
    prompt: Annotated[str, typer.Option("--input", help="Prompt tokens, as for plan.")] = "512",
    output: Annotated[str, typer.Option(help="Output tokens, as for plan.")] = "256",
    streams: Annotated[
        int, typer.Option(min=1, help="On a CPU: sequences at once; 1 favours int4.")
    ] = 16,
    kv_dtype: Annotated[str, typer.Option(help="KV_CACHE_DTYPE: auto or fp8.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, max=64, help="GPUs per replica.")] = 1,
    prices: Annotated[Path | None, typer.Option(help="Prices of your own, JSON or YAML.")] = None,
    region: Annotated[str | None, typer.Option(help="Only prices of this region.")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure this CPU first.")] = False,
    calibration: Annotated[
        Path,
        typer.Option(
            help="Where the CPU's measurement is kept.",
            show_default="~/.cache/llm-gateway/calibration.json",
        ),
    ] = CALIBRATION,
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="CPU threads.")] = None,
    memory_gib: Annotated[
        float | None, typer.Option(min=0.01, help="RAM of the CPU machine; empty: what is free.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the advice as JSON here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Which quantisation for a model on this hardware: why, memory, speed, cost per token."""
    from engine.capacity import CapacityError
    from engine.capacity.advice_report import advice_cpu, advice_gpu
    from engine.capacity.gpus import find_gpu
    from engine.capacity.memory import Serving
    from engine.capacity.model import open_model
    from engine.capacity.prices import read_prices
    from engine.capacity.traffic import Traffic, parse_lengths
    from gateway.plan_cli import cpu_calibration, cpu_memory
    from gateway.plan_report import deliver, print_advice

    try:
        on_gpu = None if gpu.lower() == "cpu" else find_gpu(gpu)
        opened = open_model(model)
        listed = read_prices(prices)
        traffic = Traffic(
            1.0, parse_lengths(prompt, "input_tokens"), parse_lengths(output, "output_tokens")
        )
        if on_gpu is None:
            measured = cpu_calibration(calibrate, calibration, threads)
            found = advice_cpu(opened, measured, cpu_memory(memory_gib), streams, traffic, listed)
        else:
            serving = Serving(kv_dtype=kv_dtype, tensor_parallel=tensor_parallel)
            found = advice_gpu(opened, on_gpu, serving, traffic, listed, region)
        deliver(found, out, as_json, print_advice)
    except CapacityError as error:
        fail(str(error))


advise.__doc__ = f"{advise.__doc__}\n\n{EXAMPLES}"

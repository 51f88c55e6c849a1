"""``llm-gateway plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from engine.capacity.calibrate import Calibration

CALIBRATION = Path.home() / ".cache" / "llm-gateway" / "calibration.json"
EXAMPLES = """Examples:

llm-gateway plan ./Llama-3.1-8B --gpu l4 --quantization fp8 --rate 5 --ttft-ms 1500 --itl-ms 80

llm-gateway plan config.json --gpu h100 --rate 20 --input lognormal:700,2000 --output
exponential:250 --max-model-len 8192

llm-gateway plan bundled --gpu cpu --calibrate --rate 2 --input 200 --output 100
"""


def plan(
    model: Annotated[
        str, typer.Argument(help="A folder, a hub id, a config.json alone, or bundled.")
    ],
    gpu: Annotated[str, typer.Option(help="GPU type such as l4 or h100; cpu: the ONNX engine.")],
    rate: Annotated[float, typer.Option(min=0.0, help="Requests per second, over all.")] = 1.0,
    prompt: Annotated[
        str,
        typer.Option(
            "--input",
            help="Prompt tokens: 512, uniform:100-900, exponential:300, lognormal:MEDIAN,P95, "
            "or @FILE with one number or JSON object (input_tokens) per line.",
        ),
    ] = "512",
    output: Annotated[
        str, typer.Option(help="Output tokens, in the same forms (output_tokens).")
    ] = "256",
    ttft_ms: Annotated[float | None, typer.Option(help="Target: time to first token.")] = None,
    itl_ms: Annotated[float | None, typer.Option(help="Target: time between tokens.")] = None,
    percentile: Annotated[
        float, typer.Option(min=1, max=99.9, help="Percentile that the targets hold for.")
    ] = 95.0,
    quantization: Annotated[
        str,
        typer.Option(
            help="auto (as the checkpoint is), none, fp8, int8, awq; on a CPU auto, int8, int4, "
            "fp32."
        ),
    ] = "auto",
    kv_dtype: Annotated[str, typer.Option(help="KV_CACHE_DTYPE: auto or fp8.")] = "auto",
    tensor_parallel: Annotated[
        int, typer.Option(min=0, max=64, help="GPUs per replica; 0: the fewest that fit.")
    ] = 0,
    max_model_len: Annotated[
        int | None, typer.Option(min=16, help="Longest sequence; empty: of the traffic.")
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Empty: 256, on a CPU 16.")
    ] = None,
    max_num_batched_tokens: Annotated[
        int, typer.Option(min=16, max=10_000_000, help="Tokens per step of vLLM.")
    ] = 2048,
    gpu_memory_utilization: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of each GPU that vLLM takes.")
    ] = 0.92,
    enforce_eager: Annotated[bool, typer.Option(help="Plan without CUDA graphs.")] = False,
    headroom: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Most of a replica's time or seats to use.")
    ] = 0.7,
    bandwidth_efficiency: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of peak bandwidth, in decoding.")
    ] = 0.8,
    compute_efficiency: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of peak FLOPS, in prefill.")
    ] = 0.5,
    prices: Annotated[Path | None, typer.Option(help="Prices of your own, JSON or YAML.")] = None,
    region: Annotated[str | None, typer.Option(help="Only prices of this region.")] = None,
    requests: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Requests of the simulation.")
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure this CPU first.")] = False,
    calibration: Annotated[
        Path,
        typer.Option(
            help="Where the CPU's measurement is kept.",
            show_default="~/.cache/llm-gateway/calibration.json",
        ),
    ] = CALIBRATION,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="CPU threads; empty: physical cores.")
    ] = None,
    memory_gib: Annotated[
        float | None, typer.Option(min=0.01, help="RAM of the CPU machine; empty: what is free.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan as JSON here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """How many replicas a model and its traffic need, what they cost, and the settings to use."""
    from engine.capacity import CapacityError
    from engine.capacity.decide import Target
    from engine.capacity.gpus import find_gpu
    from engine.capacity.memory import CUDA_GRAPHS, Serving
    from engine.capacity.model import open_model
    from engine.capacity.planner import plan_cpu, plan_gpu
    from engine.capacity.prices import read_prices
    from engine.capacity.question import Question
    from engine.capacity.roofline import Efficiency
    from engine.capacity.traffic import Traffic, parse_lengths
    from gateway.plan_report import deliver, print_plan, working

    try:
        on_gpu = None if gpu.lower() == "cpu" else find_gpu(gpu)
        question = Question(
            model=open_model(model),
            traffic=Traffic(
                rate,
                parse_lengths(prompt, "input_tokens"),
                parse_lengths(output, "output_tokens"),
            ),
            target=Target(_seconds(ttft_ms), _seconds(itl_ms), percentile / 100, headroom),
            prices=read_prices(prices),
            region=region,
            max_model_len=max_model_len,
            tensor_parallel=tensor_parallel,
            requests=requests,
            seed=seed,
        )
        if on_gpu is None:
            if kv_dtype != "auto" or tensor_parallel > 1:
                fail("--kv-dtype and --tensor-parallel are for GPUs: leave them out with cpu")
            measured = cpu_calibration(calibrate, calibration, threads)
            memory = cpu_memory(memory_gib)
            with working() as progress:
                found = plan_cpu(
                    question, quantization, measured, memory, max_num_seqs or 16, progress
                )
        else:
            serving = Serving(
                quantization=quantization,
                kv_dtype=kv_dtype,
                utilization=gpu_memory_utilization,
                max_num_seqs=max_num_seqs or 256,
                batched_tokens=max_num_batched_tokens,
                cuda_graphs=0 if enforce_eager else CUDA_GRAPHS,
            )
            factors = Efficiency(bandwidth=bandwidth_efficiency, compute=compute_efficiency)
            with working() as progress:
                found = plan_gpu(question, on_gpu, serving, factors, progress)
        deliver(found, out, as_json, print_plan)
    except CapacityError as error:
        fail(str(error))


plan.__doc__ = f"{plan.__doc__}\n\n{EXAMPLES}"


def cpu_calibration(measure: bool, file: Path, threads: int | None) -> Calibration:
    """The kept measurement of this CPU, or a new one. Raises CapacityError."""
    from engine.capacity import CapacityError
    from engine.capacity.calibrate import calibrate, load
    from engine.onnx.hardware import physical_cores
    from gateway.plan_report import working

    wanted = threads or physical_cores()
    if measure:
        with working() as progress:
            found = calibrate(wanted, lambda stage, share: progress(f"{stage}: {share:.0%}"))
        found.save(file)
        return found
    kept = load(file)
    if threads is not None and kept.threads != threads:
        raise CapacityError(
            f"{file} holds a measurement with {kept.threads} threads, and --threads asks for "
            f"{threads}: add --calibrate"
        )
    return kept


def cpu_memory(gib: float | None) -> int:
    """Bytes of RAM to plan with. Raises CapacityError where the system does not tell them."""
    from engine.capacity import CapacityError
    from engine.onnx.hardware import available_memory

    found = int(gib * 1024**3) if gib is not None else available_memory()
    if found is None:
        raise CapacityError("this system does not tell its free memory: give --memory-gib")
    return found


def _seconds(milliseconds: float | None) -> float | None:
    if milliseconds is not None and milliseconds <= 0:
        from engine.capacity import CapacityError

        raise CapacityError("a target is a positive number of milliseconds")
    return None if milliseconds is None else milliseconds / 1000

"""Latency, throughput and memory of models, per execution provider, threads and batch.

Every measurement runs in a process of its own, so that none sees the memory or the threads of
another. A round takes every configuration once, the next one begins elsewhere in the list, and
figures are medians over rounds with the smallest and the largest: a machine that grows slower over
minutes slows all configurations alike.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.quantization.calibration import decoder_feeds
from engine.quantization.providers import PROVIDERS, Provider, probe
from engine.quantization.report import QuantizationError, Say, silent
from engine.quantization.rows import Row, summarise
from engine.quantization.sources import Source, read_manifest
from engine.quantization.synthetic import dimension_names, graph_inputs, synthetic

REPOSITORY = Path(__file__).resolve().parents[2]
CHILD_TIMEOUT_S = 900
PLACING_TOKENS = 16

Key = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        batches: empty takes the graph's own size where it is fixed, else 1 and 8.
        seconds: per measurement, of which there is one per configuration and round.
        prompt, tokens: of a decoder: how long a prompt to prefill, how many tokens to decode.
        dims: sizes of a graph's open dimensions.
        install: make a provider's missing environment.
    """

    models: tuple[Source, ...]
    providers: tuple[str, ...] = ("cpu",)
    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = ()
    rounds: int = 3
    seconds: float = 1.0
    prompt: int = 128
    tokens: int = 64
    dims: Mapping[str, int] = field(default_factory=dict)
    install: bool = False
    say: Say = silent


@dataclass(frozen=True, slots=True)
class Configuration:
    """One line of the table before it is measured.

    Attributes:
        asked: the provider that was asked for. reason: why ``provider`` is another.
        placed: nodes per provider, where that was looked at.
    """

    model: Source
    asked: str
    provider: Provider
    reason: str
    placed: dict[str, int]
    threads: int
    batch: int
    feeds: str

    @property
    def key(self) -> Key:
        """What is measured: the same for the same."""
        return (str(self.model.graph), self.provider.name, self.threads, self.batch)


def bench(plan: Plan) -> list[Row]:
    """Measure everything; raises EngineStartError when the plan cannot be carried out."""
    for name in plan.providers:
        if name not in PROVIDERS:
            raise QuantizationError(
                f"there is no execution provider {name!r}: take {', '.join(PROVIDERS)}"
            )
    _check_dims(plan)
    with tempfile.TemporaryDirectory(prefix="bench.") as scratch:
        configurations = _configurations(plan, Path(scratch))
        # What fell back to the CPU is often a configuration that was asked for as well.
        distinct = {chosen.key: chosen for chosen in configurations}
        keys = list(distinct)
        samples: dict[Key, list[dict[str, Any]]] = {key: [] for key in keys}
        done = itertools.count(1)
        total = plan.rounds * len(keys)
        for round_number in range(plan.rounds):
            start = round_number * len(keys) // plan.rounds
            for key in keys[start:] + keys[:start]:
                chosen = distinct[key]
                label = f"{chosen.model.label} on {chosen.provider.name}"
                plan.say(f"round {round_number + 1}: {label}", next(done) / (total + 1))
                samples[key].append(_measure(chosen, plan))
    return [_row(chosen, samples[chosen.key], plan) for chosen in configurations]


def _configurations(plan: Plan, scratch: Path) -> list[Configuration]:
    usable = {
        name: probe(name, install=plan.install, say=lambda text: plan.say(text, None))
        for name in plan.providers
    }
    cpu = probe("cpu", install=False, say=lambda _: None)
    found = []
    for number, model in enumerate(plan.models):
        batches = _batches(model, plan)
        feeds = {batch: _feeds(model, batch, plan, scratch, number) for batch in batches}
        for name in plan.providers:
            provider, reason, placed = usable[name], usable[name].missing, dict[str, int]()
            if not reason and name != "cpu":
                plan.say(f"{model.label}: placing on {name}", None)
                first = Configuration(
                    model, name, provider, "", {}, plan.threads[0], batches[0], feeds[batches[0]]
                )
                placed, reason = _placement(first)
            if reason:
                provider = cpu
            found += [
                Configuration(model, name, provider, reason, placed, threads, batch, feeds[batch])
                for threads in plan.threads
                for batch in batches
            ]
    return found


def _check_dims(plan: Plan) -> None:
    """A dimension that no graph has is a slip; one that only some have is not."""
    graphs = [model for model in plan.models if model.kind == "graph"]
    names = {name for model in graphs for name in dimension_names(graph_inputs(model.graph))}
    for name in plan.dims:
        if name not in names:
            raise QuantizationError(
                f"no graph has a dimension {name!r}: the open ones are "
                f"{', '.join(sorted(names)) or 'none'}"
            )


def _batches(model: Source, plan: Plan) -> tuple[int, ...]:
    default = plan.batches or (1, 8)
    if model.kind == "decoder":
        longest = read_manifest(_folder(model)).max_model_len
        if plan.prompt + plan.tokens > longest:
            raise QuantizationError(
                f"{model.label} was made for {longest} tokens and {plan.prompt} + {plan.tokens} "
                "were asked for: give a smaller --prompt or --tokens"
            )
        return default
    inputs = graph_inputs(model.graph)
    fixed = {value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], int)}
    opened = any(value.shape and not isinstance(value.shape[0], int) for value in inputs)
    if opened or not fixed:
        return default
    size = min(fixed)
    if plan.batches not in ((), (size,)):
        raise QuantizationError(f"{model.label} has a fixed batch of {size}: leave --batch out")
    return (size,)


def _feeds(model: Source, batch: int, plan: Plan, scratch: Path, number: int) -> str:
    if model.kind == "decoder":
        manifest = read_manifest(_folder(model))
        arrays = decoder_feeds(manifest, list(range(min(PLACING_TOKENS, manifest.vocab_size))))
    else:
        inputs = graph_inputs(model.graph)
        names = dimension_names(inputs)
        dims = {name: size for name, size in plan.dims.items() if name in names}
        arrays = synthetic(inputs, batch, dims, np.random.default_rng(batch))
    path = scratch / f"{number}-{batch}.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def _folder(model: Source) -> Path:
    assert model.folder is not None
    return model.folder


def _placement(chosen: Configuration) -> tuple[dict[str, int], str]:
    """Nodes per provider, and why the asked one cannot be used, or an empty text."""
    result = _child(chosen.provider.python, _job(chosen, "place", 0, 0, 0))
    if "error" in result:
        return {}, f"it cannot run this graph: {result['error']}"
    placed: dict[str, int] = result["placed"]
    if not placed.get(chosen.provider.full_name):
        return placed, "it took none of the graph's nodes"
    return placed, ""


def _measure(chosen: Configuration, plan: Plan) -> dict[str, Any]:
    action = "decoder" if chosen.model.kind == "decoder" else "graph"
    job = _job(chosen, action, plan.seconds, plan.prompt, plan.tokens)
    return _child(chosen.provider.python, job)


def _job(
    chosen: Configuration, action: str, seconds: float, prompt: int, tokens: int
) -> dict[str, Any]:
    manifest = None
    if chosen.model.kind == "decoder":
        manifest = asdict(read_manifest(_folder(chosen.model)))
    return {
        "action": action,
        "graph": str(chosen.model.graph),
        "feeds": chosen.feeds,
        "provider": chosen.provider.full_name,
        "threads": chosen.threads,
        "batch": chosen.batch,
        "seconds": seconds,
        "manifest": manifest,
        "prompt": prompt,
        "tokens": tokens,
    }


def _child(python: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Run the worker; a failure becomes ``{"error": ...}``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = [str(python), "-m", "engine.quantization.worker"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=CHILD_TIMEOUT_S,
        )
    except OSError as error:
        return {"error": f"{python} cannot be started ({error.strerror})"}
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {CHILD_TIMEOUT_S} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()[-1:] or ["no message"]
        what = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        return {"error": f"the process ended with {what}: {said[0]}"}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _row(chosen: Configuration, samples: list[dict[str, Any]], plan: Plan) -> Row:
    return summarise(
        samples,
        model=chosen.model.label,
        path=str(chosen.model.graph),
        size_bytes=chosen.model.size,
        asked=chosen.asked,
        ran_on=chosen.provider.name,
        reason=chosen.reason,
        placed=chosen.placed,
        threads=chosen.threads,
        batch=chosen.batch,
        decoder=chosen.model.kind == "decoder",
        prompt=plan.prompt,
    )

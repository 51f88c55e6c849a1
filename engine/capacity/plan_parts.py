"""The parts of a plan as JSON."""

from __future__ import annotations

from typing import Any

from engine.capacity.decide import Decision
from engine.capacity.model import Model
from engine.capacity.prices import Cost, age_warning
from engine.capacity.question import Question
from engine.capacity.roofline import GpuStep, Work

Json = dict[str, Any]


def reads_mostly(step: GpuStep, work: Work) -> bool:
    """Whether reading takes longer than multiplying."""
    reading, multiplying = step.bounds(work)
    return reading >= multiplying


def model_part(model: Model) -> Json:
    """The model."""
    return {
        "name": model.source,
        "architecture": model.architecture.name,
        "parameters": model.weights.parameters,
        "weights_known_from": f"safetensors {model.weights.source}"
        if model.weights.source == "headers"
        else "config.json",
    }


def speed_part(found: Decision, question: Question) -> Json:
    """One replica's speed."""
    return {
        "concurrent_sequences": found.seats,
        "full_throughput_tokens_per_s": found.throughput,
        "demand_tokens_per_s": question.traffic.rate * question.traffic.output.mean,
    }


def answer_part(found: Decision, question: Question) -> Json:
    """Replicas, and what formula and simulation expect of each."""
    share, outcome = question.target.share, found.outcome
    return {
        "replicas": found.replicas,
        "replicas_by_formula": found.by_formula,
        "percentile": share * 100,
        "formula": {
            "running": found.estimate.running,
            "utilization": found.estimate.utilization,
            "ttft_ms": found.estimate.ttft * 1000,
            "itl_ms": found.estimate.itl * 1000,
        },
        "simulation": {
            "requests": question.requests,
            "seed": question.seed,
            "running": outcome.running,
            "busy": outcome.busy,
            "ttft_ms": outcome.ttft_at(share) * 1000,
            "itl_ms": outcome.itl_at(share) * 1000,
            "preemptions": outcome.preemptions,
            "peak_blocks": outcome.peak_blocks,
        },
    }


def cost_part(question: Question, cost: Cost | None) -> Json | None:
    """What the machines cost, or None without a price."""
    if cost is None:
        return None
    demand = question.traffic.rate * question.traffic.output.mean
    price = cost.price
    return {
        "currency": cost.currency,
        "machine": price.machine,
        "machines": cost.machines,
        "region": price.region,
        "as_of": price.as_of.isoformat(),
        "source": price.source,
        "monthly_on_demand": cost.monthly(),
        "monthly_spot": cost.monthly(spot=True),
        "per_million_output_tokens": cost.per_million(demand),
        "per_million_output_tokens_spot": cost.per_million(demand, spot=True),
        "warning": age_warning(price, question.today),
    }

"""The advice with its prices, as JSON."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from engine.capacity import cpu_advice
from engine.capacity.advise import Choice, choices, recommend
from engine.capacity.calibrate import Calibration
from engine.capacity.gpus import Gpu
from engine.capacity.memory import Serving
from engine.capacity.model import Model
from engine.capacity.prices import Cost, PriceList, age_warning
from engine.capacity.settings_lines import cpu_settings, gpu_settings
from engine.capacity.traffic import Traffic

Json = dict[str, Any]


def advice_gpu(
    model: Model,
    gpu: Gpu,
    serving: Serving,
    traffic: Traffic,
    prices: PriceList,
    region: str | None = None,
    today: date | None = None,
) -> Json:
    """Every method on ``gpu`` and the one to take. Raises CapacityError if none runs."""
    found = choices(model, gpu, serving, traffic)
    best, why = recommend(found, model, gpu)
    cost = prices.cost(gpu.name, serving.tensor_parallel, 1, region)
    settings = gpu_settings(model, gpu, replace(serving, quantization=best.method), traffic.longest)
    wanted = ("MODEL_NAME", "ENGINE", "QUANTIZATION", "DTYPE", "KV_CACHE_DTYPE")
    kept = {name: settings[name] for name in wanted if name in settings}
    return _report(model, gpu.title, found, best, why, cost, kept, today or date.today())


def advice_cpu(
    model: Model,
    calibration: Calibration,
    memory: int,
    streams: int,
    traffic: Traffic,
    prices: PriceList,
    today: date | None = None,
) -> Json:
    """Every variant on the CPU that ``calibration`` measured, and the one to take. Raises
    CapacityError where the engine does not cover the model."""
    found = cpu_advice.choices(model, calibration, memory, streams, traffic)
    best, why = cpu_advice.recommend(found, streams)
    settings = cpu_settings(model, best.method, calibration.threads, streams, 0, traffic.longest)
    wanted = ("MODEL_NAME", "ENGINE", "ONNX_PRECISION", "ONNX_THREADS")
    kept = {name: settings[name] for name in wanted}
    where = f"{calibration.cpu}, {calibration.threads} thread(s)"
    cost = prices.cost("cpu", 1, 1)
    return _report(model, where, found, best, why, cost, kept, today or date.today())


def _report(
    model: Model,
    hardware: str,
    found: list[Choice],
    best: Choice,
    why: str,
    cost: Cost | None,
    settings: dict[str, str],
    today: date,
) -> Json:
    return {
        "model": model.source,
        "hardware": hardware,
        "recommended": best.method,
        "recommended_title": best.title,
        "why": why,
        "settings": settings,
        "currency": cost.currency if cost else "",
        "price": None
        if cost is None
        else {
            "machine": cost.price.machine,
            "region": cost.price.region,
            "as_of": cost.price.as_of.isoformat(),
            "source": cost.price.source,
            "warning": age_warning(cost.price, today),
        },
        "choices": [_choice(choice, cost) for choice in found],
    }


def _choice(choice: Choice, cost: Cost | None) -> Json:
    return {
        "method": choice.method,
        "title": choice.title,
        "refused": choice.refused,
        "note": choice.note,
        "weights_bytes": choice.weights,
        "kv_bytes": choice.kv,
        "sequences": choice.sequences,
        "one_stream_tokens_per_s": choice.alone,
        "full_tokens_per_s": choice.throughput,
        "cost_per_million_output_tokens": cost.per_million(choice.throughput) if cost else None,
    }

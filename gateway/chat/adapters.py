"""LoRA adapters, which clients ask for as models."""

from __future__ import annotations

from gateway.control.fleet import Route
from gateway.errors import ModelNotFound


def adapter_of(route: Route, name: str | None) -> str | None:
    """The adapter that a request for ``name`` means, or None for the model as it is.

    A model that stands in for another one has none of its adapters. Raises ModelNotFound where
    the engine that serves the model takes none.
    """
    if name is None or route.degraded or name not in route.replica.config.vllm.lora_modules:
        return None
    if not route.info.capabilities.lora:
        raise ModelNotFound(
            f"The model '{name}' is a LoRA adapter, and '{route.model_id}' runs on an engine that "
            "takes none here. It needs ENGINE=vllm.",
            param="model",
        )
    return name

"""Settings of more than one engine: replicas, further models, and the fallback."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from gateway.control.fallback import FallbackPolicy


class FleetSettings(BaseSettings):
    """Mixed into ``Settings``."""

    replicas: int = Field(
        1, ge=1, le=64, description="Engines of the model in this gateway, each restarted alone."
    )
    models: Annotated[tuple[dict[str, Any], ...], NoDecode] = Field(
        (),
        description='Further models, a JSON list of settings such as [{"model_name":"/models/b",'
        '"engine":"onnx"}]; what an entry leaves out is as for the first model.',
    )
    fallback_model: str | None = Field(
        None,
        description="Model that answers on CPU while a model cannot: bundled, a folder, a hub id.",
    )
    fallback_policy: str = Field(
        "on", description="on, off, or for whom: a comma-separated list of model:NAME and key:ID."
    )
    restart_delay_s: float = Field(
        1.0,
        gt=0,
        le=86_400,
        description="Wait before a dead engine is started again; doubles up to a minute or this.",
    )
    carry_on_wait_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="How long a stream whose engine died may wait for it to come back.",
    )

    @field_validator("fallback_model", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("fallback_policy")
    @classmethod
    def _check_policy(cls, value: str) -> str:
        FallbackPolicy.parse(value)
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _parse_models(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return ()
        try:
            parsed = json.loads(value)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None
        if not isinstance(parsed, list) or not all(isinstance(item, dict) for item in parsed):
            raise ValueError('a JSON list of objects is needed, such as [{"model_name":"bundled"}]')
        return tuple(parsed)

"""A container's environment, checked with the gateway's own settings before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from gateway.settings import Settings, explain

# What a container on Vertex AI needs. How long it grants a container after SIGTERM is not
# documented: ten seconds is the least that its kin give.
DEFAULTS = {"HOST": "0.0.0.0", "VERTEX_AUTH": "iam", "DRAIN_TIMEOUT_S": "9"}  # noqa: S104
# Not ours, yet of use in a container that serves models.
_OTHERS = re.compile(
    r"(HF|HUGGING_FACE|TRANSFORMERS|TOKENIZERS|VLLM|FLASHINFER|NCCL|CUDA|NVIDIA|TORCH|PYTORCH|TRITON|"
    r"OMP|MKL|OTEL|GOOGLE|RAY|LD|LC|SSL|REQUESTS)_\w+|PYTHON\w+|TZ|LANG|HTTPS?_PROXY|NO_PROXY"
)


def as_text(value: Any) -> str:
    """A value of YAML as the environment holds it; lists and mappings become JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    return "" if value is None else str(value)


def full_environment(own: Mapping[str, str]) -> dict[str, str]:
    """What the container gets: the needed settings, and ``own`` on top."""
    return {**DEFAULTS, **own}


def check_environment(own: Mapping[str, str], port: int) -> Settings:
    """The settings that a gateway with this environment has on Vertex AI.

    Raises ValueError with a line for every fault.
    """
    for name in own:
        _check_name(name)
    if own.get("HOST") not in (None, DEFAULTS["HOST"]):
        raise ValueError("HOST: Vertex AI reaches the container at 0.0.0.0: remove it")
    environment = {**full_environment(own), "AIP_HTTP_PORT": str(port)}
    # Keys stored on this machine say nothing of the container.
    environment.setdefault("DATA_DIR", "/nonexistent/llm-gateway")
    given = {name.lower(): value for name, value in environment.items()}

    class OfTheSpec(Settings):
        """The environment of the spec in place of this process's."""

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (_Given(settings_cls, given),)

    nothing: dict[str, Any] = {}
    try:
        return OfTheSpec(**nothing)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


class _Given(EnvSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], given: Mapping[str, str]) -> None:
        self.given = given
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self.given


def _check_name(name: str) -> None:
    if name.startswith("AIP_"):
        raise ValueError(f"{name}: Vertex AI sets AIP_* itself: remove it")
    if name == "PORT":
        raise ValueError("PORT: Vertex AI goes by AIP_HTTP_PORT: set the deployment's port instead")
    if name.lower() in Settings.model_fields or _OTHERS.fullmatch(name):
        return
    raise ValueError(
        f"{name}: no setting of the gateway (llm-gateway config example lists them), nor one of "
        "the libraries beneath it: correct the name or remove it"
    )

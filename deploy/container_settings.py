"""The settings of a gateway in a container elsewhere, from the environment that it will get."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from gateway.settings import Settings, explain

# Not ours, yet of use in a container that serves models.
_OTHERS = re.compile(
    r"(HF|HUGGING_FACE|TRANSFORMERS|TOKENIZERS|VLLM|FLASHINFER|NCCL|CUDA|NVIDIA|TORCH|PYTORCH|TRITON|"
    r"OMP|MKL|OTEL|GOOGLE|RAY|LD|LC|SSL|REQUESTS)_\w+|PYTHON\w+|TZ|LANG|HTTPS?_PROXY|NO_PROXY"
)


def check_known(name: str) -> None:
    """Raises ValueError for a variable that nothing in the container reads."""
    if name.lower() not in Settings.model_fields and not _OTHERS.fullmatch(name):
        raise ValueError(
            f"{name}: no setting of the gateway (llm-gateway config example lists them), nor one "
            "of the libraries beneath it: correct the name or remove it"
        )


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings that this environment gives, and no other; keys stored on this machine say
    nothing of the container. Raises ValueError with a line for every fault."""
    given = {"data_dir": "/nonexistent/llm-gateway"}
    given |= {name.lower(): value for name, value in environment.items()}

    class OfTheContainer(Settings):
        """With ``environment`` in place of this process's."""

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (_Given(settings_cls, given),)

    nothing: dict[str, Any] = {}
    try:
        return OfTheContainer(**nothing)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


class _Given(EnvSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], given: Mapping[str, str]) -> None:
        self.given = given
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self.given

"""Settings of traces and hooks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from gateway.hooks.load import load_hooks
from gateway.telemetry.otlp_headers import read_headers

OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
TRACES_PATH = "/v1/traces"


class TelemetrySettings(BaseSettings):
    """Mixed into ``Settings``. The names of traces are OpenTelemetry's own."""

    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        max_length=2048,
        description="OpenTelemetry collector that gets traces over OTLP/HTTP, such as "
        "http://127.0.0.1:4318; /v1/traces is appended; empty: no traces.",
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        None, max_length=2048, description="The same as a complete URL; it comes first."
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None, description="Headers for the collector: name=value, comma-separated."
    )
    otel_exporter_otlp_protocol: str = Field(
        "http/protobuf", pattern="^http/protobuf$", description="Only http/protobuf is spoken."
    )
    otel_service_name: str = Field(
        "llm-gateway", min_length=1, max_length=256, description="Name of this service in traces."
    )
    otel_traces_sampler_arg: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of requests that are traced, unless the caller's traceparent decides.",
    )
    hooks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=16,
        description="Hooks on requests and answers, in order, comma-separated: redact, names of "
        "installed plug-ins, or module:object.",
    )
    hook_options: dict[str, dict[str, Any]] = Field(
        {}, description="Options of hooks as a JSON object, by their entries in HOOKS."
    )
    hook_timeout_s: float = Field(
        5.0, gt=0, le=600, description="How long a hook may think about a request or an answer."
    )

    @field_validator(
        "otel_exporter_otlp_endpoint",
        "otel_exporter_otlp_traces_endpoint",
        "otel_exporter_otlp_headers",
        mode="before",
    )
    @classmethod
    def _empty_is_off(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    @classmethod
    def _check_collector(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("it must be a URL such as http://127.0.0.1:4318")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("it must hold no credentials; use OTEL_EXPORTER_OTLP_HEADERS")
        if any(not is_there(name) for name in OTEL_MODULES):
            raise ValueError("it needs OpenTelemetry: pip install 'llm-gateway[otel]'")
        return value

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _check_collector_headers(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_headers(value.get_secret_value())
        return value

    @field_validator("hooks", mode="before")
    @classmethod
    def _split_hooks(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _check_hooks(self) -> Self:
        if unknown := sorted(set(self.hook_options) - set(self.hooks)):
            raise ValueError(f"HOOK_OPTIONS: HOOKS does not name {unknown[0][:64]!r}")
        load_hooks(self.hooks, self.hook_options)
        return self

    @property
    def traces_url(self) -> str | None:
        """Where traces go, or None for no traces."""
        if self.otel_exporter_otlp_traces_endpoint is not None:
            return self.otel_exporter_otlp_traces_endpoint
        base = self.otel_exporter_otlp_endpoint
        return None if base is None else base.rstrip("/") + TRACES_PATH


def is_there(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

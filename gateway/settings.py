"""Every setting, typed, bounded and described; frozen after start.

Values come from the environment and from ``.env`` in the working directory, the
environment first. An unknown key in ``.env`` or a value out of bounds stops the start
with the fix in the message. ``.env.example`` is generated from this file.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from engine.config import EngineConfig, EngineKind, OnnxPrecision, VllmOptions
from gateway.chat.parsing import Formats
from gateway.settings_admin import AdminSettings
from gateway.settings_admission import AdmissionSettings
from gateway.settings_batch import BatchSettings
from gateway.settings_fleet import FleetSettings
from gateway.settings_identity import IdentitySettings
from gateway.settings_ledger import LedgerSettings
from gateway.settings_limits import LimitSettings
from gateway.settings_media import MediaSettings
from gateway.settings_routing import RoutingSettings
from gateway.settings_telemetry import TelemetrySettings
from gateway.settings_vertex import VertexSettings
from gateway.settings_vllm import VLLM_MAX_NUM_SEQS, VllmSettings

MIB = 1024 * 1024
ONNX_MAX_NUM_SEQS = 16


# What an entry of MODELS may set.
PER_MODEL = frozenset(
    {
        "model_name",
        "served_model_name",
        "revision",
        "engine",
        "replicas",
        "max_model_len",
        "max_num_seqs",
        "onnx_precision",
        "onnx_threads",
        "onnx_kv_tokens",
        "onnx_prefix_cache_tokens",
        "engine_options",
        "tool_parser",
        "reasoning_parser",
        *VllmSettings.model_fields,
    }
)


class SettingsError(Exception):
    """The settings are not usable. The message lists every fault with its fix."""


class Settings(
    AdminSettings,
    AdmissionSettings,
    BatchSettings,
    FleetSettings,
    IdentitySettings,
    RoutingSettings,
    LedgerSettings,
    LimitSettings,
    MediaSettings,
    TelemetrySettings,
    VllmSettings,
    VertexSettings,
):
    """The one settings object. Field names in upper case are the environment's names."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="forbid",
        frozen=True,
        case_sensitive=False,
        hide_input_in_errors=True,
    )

    model_name: str = Field(
        "bundled",
        min_length=1,
        description="What to serve: bundled, a folder in Hugging Face layout, or a hub id.",
    )
    served_model_name: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names clients may use, comma-separated; the first is answered."
    )
    revision: str | None = Field(None, description="Hub revision: a branch, a tag or a commit.")
    engine: EngineKind = Field("auto", description="auto, onnx, vllm or fake.")
    host: str = Field("127.0.0.1", description="Address to bind; beyond loopback needs a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Keys that clients may use, comma-separated, 16 characters or more each."
    )
    max_model_len: int | None = Field(
        None, ge=16, le=10_000_000, description="Cap on prompt plus output, in tokens."
    )
    max_num_seqs: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Sequences decoded together; empty: 16 with ONNX, 256 with vLLM.",
    )
    max_queue: int = Field(
        256, ge=0, le=100_000, description="Requests that may wait; more are refused with 503."
    )
    onnx_precision: OnnxPrecision = Field(
        "auto", description="Variant of the ONNX model: auto, fp32, int8, int8_block or int4."
    )
    onnx_threads: int | None = Field(
        None, ge=1, le=256, description="CPU threads of the ONNX engine; empty: physical cores."
    )
    onnx_kv_tokens: int | None = Field(
        None,
        ge=64,
        le=1_000_000_000,
        description="KV memory of the ONNX engine, in tokens; empty: MAX_NUM_SEQS full contexts.",
    )
    onnx_prefix_cache_tokens: int = Field(
        8192, ge=0, le=1_000_000_000, description="KV kept for reuse of prefixes; 0 turns it off."
    )
    model_cache_dir: Path = Field(
        Path.home() / ".cache" / "llm-gateway",
        description="Where downloaded and converted models are kept.",
    )
    data_dir: Path = Field(
        default_factory=lambda: default_data_dir(),
        description="Where stored responses, files and batches are kept; empty: "
        "$XDG_STATE_HOME/llm-gateway or ~/.local/state/llm-gateway.",
    )
    responses_max_stored: int = Field(
        10_000, ge=0, le=100_000_000, description="Stored responses per project; 0 stores none."
    )
    responses_max_bytes: int = Field(
        256 * MIB, ge=MIB, le=1024 * 1024 * MIB, description="Their size per project, in bytes."
    )
    responses_max_total_bytes: int = Field(
        2048 * MIB, ge=MIB, le=1024 * 1024 * MIB, description="Their size over all, in bytes."
    )
    responses_max_age_s: float = Field(
        30 * 86_400, gt=0, le=3650 * 86_400, description="How long an unused response is kept."
    )
    tool_parser: str = Field(
        "",
        max_length=64,
        description="How the model writes tool calls, such as hermes or llama3_json; none turns "
        "them off; empty: its chat template tells.",
    )
    reasoning_parser: str = Field(
        "",
        max_length=64,
        description="How the model marks its thinking, such as qwen3; none turns it off; empty: "
        "its chat template tells.",
    )
    engine_options: dict[str, Any] = Field(
        {}, description="Options of one engine kind only, as a JSON object."
    )
    playground: bool = Field(
        True, description="Serve the chat page at / and the API's documentation at /docs."
    )
    strict_parameters: bool = Field(
        False, description="Refuse unknown request fields with 400 instead of ignoring them."
    )
    drain_timeout_s: float = Field(
        30.0, ge=0, le=86_400, description="How long SIGTERM lets running streams go on."
    )
    max_body_bytes: int = Field(
        32 * MIB, ge=1024, le=1024 * MIB, description="Largest request body; more is 413."
    )
    max_header_bytes: int = Field(
        32 * 1024, ge=4096, le=MIB, description="Largest request head; more is 431."
    )
    body_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="How long a client may take to send a request body."
    )
    head_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="How long a client may take to send a request head."
    )
    write_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="How long a client may refuse to read its answer."
    )
    keep_alive_s: float = Field(
        75.0, ge=0, le=3600, description="How long an idle connection stays open."
    )
    sse_ping_s: float = Field(
        15.0, ge=0, le=3600, description="Comment sent on a silent stream; 0 turns it off."
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning, error."
    )
    log_format: str = Field("json", pattern="^(json|text)$", description="json or text.")

    @field_validator("served_model_name", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        keys = split_list(value)
        if isinstance(keys, tuple) and any(len(str(k)) < 16 for k in keys if isinstance(k, str)):
            raise ValueError(
                "each key needs at least 16 characters; make one with: openssl rand -hex 32"
            )
        return keys

    @field_validator("tool_parser")
    @classmethod
    def _known_tool_format(cls, value: str) -> str:
        Formats().overridden(tool=value)
        return value

    @field_validator("reasoning_parser")
    @classmethod
    def _known_reasoning_format(cls, value: str) -> str:
        Formats().overridden(reasoning=value)
        return value

    @field_validator("data_dir", mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return default_data_dir() if value == "" else value

    @field_validator("model_cache_dir", "data_dir")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator(
        "revision", "max_model_len", "max_num_seqs", "onnx_threads", "onnx_kv_tokens", mode="before"
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @model_validator(mode="after")
    def _needs_a_key_beyond_loopback(self) -> Self:
        if self.vertex_auth != "iam" and not is_loopback(self.host) and not self.has_keys():
            raise ValueError(
                f"HOST={self.host} is reachable from other machines and there is no API key: make "
                "one with: llm-gateway keys create; or set API_KEYS (openssl rand -hex 32) or "
                "HOST=127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _admin_port_needs_a_key_beyond_loopback(self) -> Self:
        if self.admin_port is None:
            return self
        if self.admin_port and self.admin_port == (self.aip_http_port or self.port):
            raise ValueError("ADMIN_PORT and PORT are the same; give ADMIN_PORT another one")
        if not is_loopback(self.admin_host) and not self.has_keys():
            raise ValueError(
                f"ADMIN_HOST={self.admin_host} is reachable from other machines and there is no "
                "API key: make one with: llm-gateway keys create --admin server; or set ADMIN_KEYS "
                "or ADMIN_HOST=127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        names: set[str] = set()
        for config, _ in self.served_models():
            if len(set(config.names)) < len(config.names):
                raise ValueError(
                    f"SERVED_MODEL_NAME, LORA_MODULES: {', '.join(config.names)}: every name of a "
                    "model and of its adapters has to be different"
                )
            if taken := names.intersection(config.names):
                raise ValueError(
                    f"MODELS: two models are called {sorted(taken)[0]}; give each entry its own "
                    "served_model_name"
                )
            names.update(config.names)
        return self

    def has_keys(self) -> bool:
        """Whether a key is needed. Raises ValueError when the stored ones cannot be read."""
        return bool(self.api_keys or self.admin_keys) or has_stored_keys(self.data_dir)

    def served_models(self) -> list[tuple[EngineConfig, int]]:
        """Each served model and how many engines it gets. Raises ValueError."""
        found = [(self.engine_config(), self.replicas)]
        for position, entry in enumerate(self.models):
            own = self.of_entry(entry, f"MODELS[{position}]")
            found.append((own.engine_config(), own.replicas))
        return found

    def of_entry(self, entry: dict[str, Any], where: str) -> Settings:
        """The settings of one further model; what it leaves out is as for the first.

        Raises ValueError that begins with ``where``.
        """
        if unknown := sorted(set(entry) - PER_MODEL):
            raise ValueError(f"{where}: {unknown[0]} is not a setting of a single model")
        if "model_name" not in entry:
            raise ValueError(f"{where}: model_name is missing")
        shared = {name: getattr(self, name) for name in type(self).model_fields}
        first_ones = {"models": (), "served_model_name": (), "replicas": 1, "lora_modules": {}}
        own = shared | first_ones | {"engine_options": {}} | entry
        try:
            return EntrySettings(**own)
        except ValidationError as error:
            raise ValueError(f"{where}: {explain(error)}") from None

    def fallback_config(self) -> EngineConfig | None:
        """The CPU engine that answers while a model cannot, or None."""
        if self.fallback_model is None:
            return None
        return replace(
            self.engine_config(),
            model=self.fallback_model,
            kind="onnx",
            served_names=(),
            revision=None,
            max_model_len=None,
            max_num_seqs=ONNX_MAX_NUM_SEQS,
            tool_parser="",
            reasoning_parser="",
            vllm=VllmOptions(),
            options={},
        )

    def engine_config(self) -> EngineConfig:
        """The part of the settings that the first model's engine is built from."""
        return EngineConfig(
            model=self.model_name,
            kind=self.engine,
            served_names=self.served_model_name,
            revision=self.revision,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs or ONNX_MAX_NUM_SEQS,
            max_waiting=self.max_queue,
            kv_cache_tokens=self.onnx_kv_tokens,
            prefix_cache_tokens=self.onnx_prefix_cache_tokens,
            precision=self.onnx_precision,
            threads=self.onnx_threads,
            cache_dir=self.model_cache_dir,
            tool_parser=self.tool_parser,
            reasoning_parser=self.reasoning_parser,
            vllm=self.vllm_options(self.max_num_seqs or VLLM_MAX_NUM_SEQS),
            options=dict(self.engine_options),
        )


class EntrySettings(Settings):
    """The settings of one entry of MODELS: the environment has been read already, and
    reading it again would merge its JSON objects into the entry's own."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def default_data_dir() -> Path:
    """The folder for lasting state, as the XDG base directory specification names it."""
    # A relative XDG path is to be ignored, says the specification.
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "llm-gateway"


def split_list(value: Any) -> Any:
    """Split a comma-separated string; anything else passes through for pydantic to judge."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. Unknown names count as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def has_stored_keys(data_dir: Path) -> bool:
    """Whether keys have been stored there. Raises ValueError when that cannot be told."""
    from gateway.control.identity.store import KeyStore, KeyStoreUnavailable
    from gateway.control.identity.watch import has_keys

    try:
        return has_keys(KeyStore(data_dir))
    except KeyStoreUnavailable as error:
        raise ValueError(f"the stored API keys cannot be read: {error.cause}") from None


def load_settings(**overrides: Any) -> Settings:
    """Read and check the settings; raises SettingsError naming each fault and its fix."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """One line per fault, in the environment's spelling, without the offending value."""
    lines = []
    for fault in error.errors(include_input=False, include_url=False):
        name = str(fault["loc"][0]).upper() if fault["loc"] else ""
        if fault["type"] == "extra_forbidden":
            lines.append(f"{name}: no such setting; see .env.example for the names")
            continue
        message = fault["msg"].removeprefix("Value error, ")
        field = Settings.model_fields.get(name.lower())
        hint = f" ({field.description})" if field and field.description else ""
        lines.append(f"{name}: {message}{hint}" if name else message)
    return "\n".join(lines)

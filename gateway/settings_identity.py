"""Settings of who may call: administrators' keys, and proxies that are believed."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

SHORTEST_KEY = 16


class IdentitySettings(BaseSettings):
    """Mixed into ``Settings``."""

    admin_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys that may also use the admin API, comma-separated, 16 characters or more "
        "each; see llm-gateway keys create --admin for stored ones.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        description="Networks whose X-Forwarded-For is believed, comma-separated, such as "
        "10.0.0.0/8; empty: nobody's.",
    )

    @field_validator("admin_keys", mode="before")
    @classmethod
    def _split_admin_keys(cls, value: Any) -> Any:
        return read_keys(value)

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError as error:
            raise ValueError(f"{error}; give networks such as 10.0.0.0/8, 127.0.0.1") from None

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        own = {key.get_secret_value() for key in getattr(self, "api_keys", ())}
        if any(key.get_secret_value() in own for key in self.admin_keys):
            raise ValueError("a key is in both API_KEYS and ADMIN_KEYS: leave it in one of them")
        return self


def read_keys(value: Any) -> Any:
    """Keys from a comma-separated string; raises ValueError for one that is too short."""
    if not isinstance(value, str):
        return value
    keys = tuple(part.strip() for part in value.split(",") if part.strip())
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise ValueError(
            f"each key needs at least {SHORTEST_KEY} characters; make one with: "
            "openssl rand -hex 32"
        )
    return keys

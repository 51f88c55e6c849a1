"""Settings of images in requests."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from gateway.media.hosts import MediaHosts

MIB = 1024 * 1024


class MediaSettings(BaseSettings):
    """Mixed into ``Settings``."""

    media_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts that images may be fetched from, comma-separated, as name or name:port; "
        "empty: images come as data URLs only.",
    )
    media_private_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks that are not public and that names in MEDIA_ALLOWED_HOSTS may lead "
        "to, comma-separated, such as 10.1.0.0/16.",
    )
    media_max_images: int = Field(32, ge=1, le=2048, description="Images in one request.")
    media_max_bytes: int = Field(
        32 * MIB, ge=1024, le=1024 * MIB, description="Their size together, in bytes."
    )
    media_max_pixels: int = Field(
        2**25, ge=1, le=2**30, description="Their size together once decoded, in pixels."
    )
    media_fetch_timeout_s: float = Field(
        10.0, gt=0, le=25, description="How long fetching one image may take."
    )

    @field_validator("media_allowed_hosts", "media_private_networks", mode="before")
    @classmethod
    def _split_media_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("media_allowed_hosts")
    @classmethod
    def _known_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        MediaHosts(value)
        return value

    @field_validator("media_private_networks")
    @classmethod
    def _known_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        MediaHosts((), value)
        return value

"""From settings to the loader of a server."""

from __future__ import annotations

from gateway.media.hosts import MediaHosts
from gateway.media.loader import ImageLoader, MediaBounds
from gateway.settings import Settings


def new_loader(settings: Settings) -> ImageLoader:
    """The loader of a server's images."""
    return ImageLoader(
        MediaHosts(settings.media_allowed_hosts, settings.media_private_networks),
        MediaBounds(
            images=settings.media_max_images,
            bytes=settings.media_max_bytes,
            pixels=settings.media_max_pixels,
        ),
        settings.media_fetch_timeout_s,
    )

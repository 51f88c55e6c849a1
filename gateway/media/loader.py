"""All images of a request, read and decoded off the event loop, within the server's bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import InvalidRequest
from gateway.media.decode import decode, read_data_url
from gateway.media.fetch import Fetcher
from gateway.media.hosts import MediaHosts
from gateway.protocol.content_parts import ImagePart

if TYPE_CHECKING:
    from PIL.Image import Image

# Requests whose images are held decoded at a time: the bound on memory is this many times
# MEDIA_MAX_PIXELS. An engine prepares one at a time; the other one is decoded meanwhile.
SEATS = 2


@dataclass(frozen=True, slots=True)
class MediaBounds:
    """Bounds on the images of one request, taken together."""

    images: int
    bytes: int
    pixels: int


class ImageLoader:
    """Loads images for every model of the server. Owned by the event loop.

    Args:
        hosts: where images may be fetched from.
        bounds: of one request.
        fetch_timeout_s: for one fetched image.
    """

    def __init__(self, hosts: MediaHosts, bounds: MediaBounds, fetch_timeout_s: float) -> None:
        self._fetcher = Fetcher(hosts, fetch_timeout_s)
        self._bounds = bounds
        self._seats = asyncio.Semaphore(SEATS)
        self._pool = ThreadPoolExecutor(SEATS, thread_name_prefix="images")

    @asynccontextmanager
    async def images(self, parts: Sequence[ImagePart]) -> AsyncIterator[list[Image]]:
        """Hold the decoded images, in order, while the block runs; keep none beyond it.

        Raises InvalidRequest naming the part at fault.
        """
        if len(parts) > self._bounds.images:
            first_too_many = parts[self._bounds.images]
            raise InvalidRequest(
                f"Invalid '{first_too_many.path}': a request may have at most "
                f"{self._bounds.images} images.",
                param=first_too_many.path,
            )
        for part in parts:
            if not part.is_data:
                self._fetcher.check(part.url, part.path)
        fetched = await self._fetch(parts)
        async with self._seats:
            loop = asyncio.get_running_loop()
            yield await loop.run_in_executor(self._pool, self._decode, parts, fetched)

    async def close(self) -> None:
        """End the threads without waiting for work nobody wants any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _fetch(self, parts: Sequence[ImagePart]) -> dict[int, bytes]:
        """Contents of the parts that are URLs of elsewhere, by position; a URL is fetched once."""
        places: dict[str, list[int]] = {}
        for position, part in enumerate(parts):
            if not part.is_data:
                places.setdefault(part.url, []).append(position)
        most = self._bounds.bytes
        tasks = {
            url: asyncio.create_task(self._fetcher.fetch(url, parts[positions[0]].path, most))
            for url, positions in places.items()
        }
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return {position: task.result() for url, task in tasks.items() for position in places[url]}

    def _decode(self, parts: Sequence[ImagePart], fetched: dict[int, bytes]) -> list[Image]:
        """Runs in a thread."""
        bytes_left, pixels_left = self._bounds.bytes, self._bounds.pixels
        found: list[Image] = []
        for position, part in enumerate(parts):
            content = fetched.get(position)
            if content is None:
                content = read_data_url(part.url, part.path, bytes_left)
            bytes_left -= len(content)
            if bytes_left < 0:
                raise InvalidRequest(
                    f"Invalid '{part.path}': the images of a request may have "
                    f"{self._bounds.bytes} bytes together.",
                    param=part.path,
                    code="invalid_image",
                )
            image = decode(content, part.path, pixels_left)
            pixels_left -= image.width * image.height
            found.append(image)
        return found

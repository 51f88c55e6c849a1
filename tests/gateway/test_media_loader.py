"""All images of one request: their order, their bounds, and how many are held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from media_host import MediaHost, data_url, encoded, media_host, picture, sends

from gateway.errors import InvalidRequest
from gateway.media.hosts import MediaHosts
from gateway.media.loader import ImageLoader, MediaBounds
from gateway.protocol.content_parts import ImagePart

PNG = encoded(picture(1))
LARGE = 2**20


@pytest.fixture
def host() -> Iterator[MediaHost]:
    with media_host() as found:
        found.routes["/a.png"] = sends(PNG)
        yield found


def loader(host: MediaHost, **bounds: int) -> ImageLoader:
    wide = {"images": 4, "bytes": LARGE, "pixels": LARGE}
    hosts = MediaHosts([f"127.0.0.1:{host.port}"])
    return ImageLoader(hosts, MediaBounds(**(wide | bounds)), 60.0)


def parts(*urls: str) -> list[ImagePart]:
    return [ImagePart(url, f"messages[0].content[{i}].image_url.url") for i, url in enumerate(urls)]


async def load(loading: ImageLoader, *urls: str) -> list[bytes]:
    try:
        async with loading.images(parts(*urls)) as images:
            return [image.tobytes() for image in images]
    finally:
        await loading.close()


async def test_images_come_in_order_and_each_url_is_fetched_once(host: MediaHost) -> None:
    host.routes["/b.png"] = sends(encoded(picture(2)))
    a, b = host.url("/a.png"), host.url("/b.png")
    found = await load(loader(host), b, data_url(PNG), a, b)
    one, two = picture(1).tobytes(), picture(2).tobytes()
    assert found == [two, one, one, two]
    assert sorted(path for path, _ in host.seen) == ["/a.png", "/b.png"]


@pytest.mark.parametrize(
    ("bounds", "at_fault"),
    [
        ({"images": 2}, 2),
        ({"bytes": 2 * len(PNG)}, 2),
        ({"pixels": 2 * 48 * 32}, 2),
        ({"bytes": len(PNG) - 1}, 0),
    ],
)
async def test_bounds_hold_for_all_images_together(
    host: MediaHost, bounds: dict[str, int], at_fault: int
) -> None:
    for urls in ([data_url(PNG)] * 3, [host.url("/a.png")] * 3):
        with pytest.raises(InvalidRequest) as caught:
            await load(loader(host, **bounds), *urls)
        assert caught.value.param == f"messages[0].content[{at_fault}].image_url.url"


async def test_nothing_is_fetched_when_one_url_is_not_allowed(host: MediaHost) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await load(loader(host), host.url("/a.png"), "https://example.com/a.png")
    assert caught.value.param == "messages[0].content[1].image_url.url"
    assert host.seen == []


async def test_decoded_images_of_few_requests_are_held_at_a_time(host: MediaHost) -> None:
    loading = loader(host)

    async def hold() -> list[bytes]:
        async with loading.images(parts(data_url(PNG))) as images:
            return [image.tobytes() for image in images]

    async with loading.images(parts(data_url(PNG))), loading.images(parts(data_url(PNG))):
        third = asyncio.create_task(hold())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not third.done()
        # One that stops waiting leaves no trace.
        fourth = asyncio.create_task(hold())
        await asyncio.sleep(0)
        fourth.cancel()
    assert await third == await hold() == [picture(1).tobytes()]
    await loading.close()

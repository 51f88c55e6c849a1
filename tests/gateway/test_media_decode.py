"""Data URLs and image files: what is taken, and what is refused before it costs anything."""

from __future__ import annotations

import base64
import struct
import tracemalloc
import zlib

import pytest
from media_host import data_url, encoded, picture
from PIL import Image

from gateway.errors import InvalidRequest
from gateway.media.decode import decode, read_data_url

PLENTY = 2**22
PATH = "messages[0].content[1].image_url.url"


def png_of(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG whose head says this size, whatever it holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def refusal(content: bytes, max_pixels: int = PLENTY) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(content, PATH, max_pixels)
    assert (caught.value.param, caught.value.code) == (PATH, "invalid_image")
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_every_kind_becomes_rgb(kind: str, mode: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    original = picture(3, mode=mode)
    content = encoded(
        original.convert("RGB" if (kind, mode) == ("JPEG", "P") else mode), kind, **options
    )
    image = decode(content, PATH, PLENTY)
    assert (image.mode, image.size, image.info) == ("RGB", original.size, {})
    if kind in ("PNG", "WEBP"):
        assert image.tobytes() == original.convert("RGB").tobytes()


def test_transparent_pixels_are_white() -> None:
    layered = picture(1).convert("RGBA")
    layered.putalpha(0)
    for content in (encoded(layered), encoded(layered, "WEBP", lossless=True)):
        assert decode(content, PATH, PLENTY).getextrema() == ((255, 255),) * 3
    masked = picture(1).convert("P")
    colour = masked.getpixel((0, 0))
    shown = decode(encoded(masked, transparency=colour), PATH, PLENTY)
    assert shown.getpixel((0, 0)) == (255, 255, 255)


def test_grey_of_16_bits_is_scaled() -> None:
    shades = [(0, 0), (257 * 100, 100), (65535, 255)]
    for deep, shown in shades:
        image = decode(encoded(Image.new("I;16", (4, 4), deep)), PATH, PLENTY)
        assert image.getpixel((0, 0)) == (shown,) * 3


def test_pictures_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture(2, 40, 20)
    content = encoded(lying, exif=exif)
    assert (
        decode(content, PATH, PLENTY).tobytes()
        == lying.transpose(Image.Transpose.ROTATE_270).tobytes()
    )


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [picture(seed) for seed in (1, 2, 3)]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        first = decode(content, PATH, PLENTY)
        assert (
            first.tobytes() == decode(encoded(frames[0], kind, **options), PATH, PLENTY).tobytes()
        )


def test_broken_images_are_refused() -> None:
    whole = {kind: encoded(picture(1), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")}
    for kind, content in whole.items():
        assert kind.lower() in refusal(content[: len(content) // 2]).message
        for head in (12, 16, 26):
            refusal(content[:head] + bytes(200))
    for content in (
        b"",
        b"hello",
        b"RIFF",
        b"<svg/>",
        encoded(picture(1), "BMP"),
        encoded(picture(1), "TIFF"),
    ):
        assert "png, jpeg, webp or gif" in refusal(content).message
    refusal(png_of(0, 5))


@pytest.mark.parametrize("size", [(4096, 4096), (12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_head(size: tuple[int, int]) -> None:
    rows = b"\0" * 2**20
    content = png_of(*size, rows)
    tracemalloc.start()
    error = refusal(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"{PLENTY} pixels" in error.message
    assert peak < 2**20


def test_the_last_pixel_counts() -> None:
    content = encoded(picture(1, 20, 10))
    assert decode(content, PATH, 200).size == (20, 10)
    refusal(content, 199)


def test_data_urls() -> None:
    content = encoded(picture(1))
    for kind in ("image/png", "IMAGE/PNG", "image/jpeg", "image/png;charset=x"):
        assert read_data_url(data_url(content, kind), PATH, len(content)) == content
    for url in (
        "data:",
        "data:image/png,abc",
        "data:image/png;base64",
        data_url(content, "text/html"),
        data_url(content, "image/svg+xml"),
        "data:image/png;base64,a",
        "data:image/png;base64,ab c=",
        "data:image/png;base64,ümlaut==",
        data_url(content)[:-1] + "!",
    ):
        with pytest.raises(InvalidRequest) as caught:
            read_data_url(url, PATH, PLENTY)
        assert caught.value.param == PATH
    with pytest.raises(InvalidRequest, match=f"{len(content) - 1} bytes"):
        read_data_url(data_url(content), PATH, len(content) - 1)


def test_a_large_data_url_is_refused_before_it_is_decoded() -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(2**22)).decode()
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="1024 bytes"):
        read_data_url(url, PATH, 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The text after the comma is copied once; its content would be three quarters more.
    assert peak < len(url) * 1.5

"""From the bytes of an image file to pixels, within bounds. Blocks; runs in threads.

The kind is told by the content, never by what a client or a server calls it, and only the
decoders for these kinds are tried. Sizes come from the file's head: nothing is decoded before
they are known to be within bounds. Of an animation the first frame counts.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import io
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from PIL.Image import Image

DATA_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif")
CODE = "invalid_image"
WHITE = (255, 255, 255)


def read_data_url(url: str, path: str, max_bytes: int) -> bytes:
    """The content of a base64 ``data:`` URL (RFC 2397). Raises InvalidRequest naming ``path``."""
    head, comma, text = url.partition(",")
    kind, *parameters = head[len("data:") :].split(";")
    if not comma or not parameters or parameters[-1].strip().lower() != "base64":
        raise refusal(path, "expected data:image/png;base64,... or another image type")
    if kind.strip().lower() not in DATA_TYPES:
        raise refusal(path, "expected an image of type png, jpeg, webp or gif")
    if len(text) // 4 * 3 > max_bytes + 3:
        raise refusal(path, f"the images of a request may have {max_bytes} bytes together")
    try:
        content = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise refusal(path, "its base64 is not valid") from None
    if len(content) > max_bytes:
        raise refusal(path, f"the images of a request may have {max_bytes} bytes together")
    return content


def kind_of(content: bytes) -> str | None:
    """PNG, JPEG, WEBP or GIF, by the first bytes; None for anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    return None


def decode(content: bytes, path: str, max_pixels: int) -> Image:
    """The image as RGB, turned upright, transparent parts white.

    Raises InvalidRequest naming ``path`` for what is no image, is broken, or has more than
    ``max_pixels`` pixels.
    """
    kind = kind_of(content)
    if kind is None:
        raise refusal(path, "expected an image of type png, jpeg, webp or gif")
    image_module, turn_upright = pillow()
    bomb = (image_module.DecompressionBombError, image_module.DecompressionBombWarning)
    try:
        with image_module.open(io.BytesIO(content), formats=(kind,)) as image:
            check_pixels(image, path, max_pixels)
            image.load()
            # A broken note of the orientation is no reason to refuse a picture.
            with contextlib.suppress(Exception):
                turn_upright(image, in_place=True)
            return to_rgb(image, image_module)
    except InvalidRequest:
        raise
    except bomb:
        raise too_many_pixels(path, max_pixels) from None
    except Exception:
        # Decoders raise almost anything on a content that was made to break them.
        raise refusal(path, f"it is a broken {kind.lower()} image") from None


def check_pixels(image: Image, path: str, max_pixels: int) -> None:
    """Raise InvalidRequest for a size out of bounds; looks at the head of the file only."""
    width, height = image.size
    if width < 1 or height < 1:
        raise refusal(path, "the image has no pixels")
    if width * height > max_pixels:
        raise too_many_pixels(path, max_pixels)


def to_rgb(image: Image, image_module: ModuleType) -> Image:
    """RGB pixels alone: without palette, transparency and whatever else the file says."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Grey of 16 bits, which Pillow would cut off at 255 instead of scaling it.
        image = image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if transparent:
        with image.convert("RGBA") as layered:
            plain: Image = image_module.new("RGB", image.size, WHITE)
            plain.paste(layered, mask=layered.getchannel("A"))
    else:
        # Always a copy: what is returned outlives the file that it came from.
        plain = image.convert("RGB")
    plain.info = {}
    return plain


@functools.cache
def pillow() -> tuple[ModuleType, Any]:
    """Pillow's ``Image`` and ``exif_transpose``; a size that Pillow warns of is an error."""
    from PIL import Image, ImageOps

    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return Image, ImageOps.exif_transpose


def refusal(path: str, why: str) -> InvalidRequest:
    """The error for an image that cannot be used."""
    return InvalidRequest(f"Invalid '{path}': {why}.", param=path, code=CODE)


def too_many_pixels(path: str, max_pixels: int) -> InvalidRequest:
    """The error for images that have more pixels together than the server takes."""
    return refusal(path, f"the images of a request may have {max_pixels} pixels together")

"""Prompts with images, for one model: what it takes, and what its engine makes of them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.base import ImageRenderer, ModelInfo, RenderedImages, RequestRejected
from gateway.chat.image_places import ImagePlaces
from gateway.chat.template import ChatTemplate
from gateway.errors import InvalidRequest
from gateway.media.loader import ImageLoader
from gateway.protocol.content_parts import ImagePart, image_parts
from gateway.protocol.messages import Message


class ImagePrompts:
    """Images in the prompts of one model; refuses them for a model that takes none.

    Args:
        info: the model. template: its chat template, if any.
        renderer: the engine, for a model that takes images.
    """

    def __init__(
        self, info: ModelInfo, template: ChatTemplate | None, renderer: ImageRenderer | None
    ) -> None:
        self._most = info.images.most if info.images is not None else None
        self._renderer = renderer
        self._places: ImagePlaces | None = None
        if template is not None:
            self._places = ImagePlaces(template, info.images, info.tokenizer)
        self._sees = self._places is not None and info.images is not None and renderer is not None

    def of(self, messages: Sequence[Message]) -> list[ImagePart]:
        """The images of a conversation. Raises InvalidRequest where the model takes none, or
        fewer."""
        parts = image_parts(messages)
        if parts and not self._sees:
            raise refusal(parts[0], "this model takes no images", "unsupported_parameter")
        if self._most is not None and len(parts) > self._most:
            why = f"this model takes at most {self._most} images in one prompt"
            raise refusal(parts[self._most], why, "invalid_value")
        return parts

    def shaped(self, messages: list[Message]) -> list[Message]:
        """The messages with their content as the chat template takes it."""
        return messages if self._places is None else self._places.shaped(messages)

    def check(self, messages: Sequence[Message], text: str, ids: Sequence[int]) -> None:
        """Raise InvalidRequest unless every image, and nothing else, has a place in the prompt."""
        parts = image_parts(messages)
        if parts and self._places is not None:
            self._places.check(text, ids, len(parts))

    async def render(
        self, ids: list[int], parts: list[ImagePart], media: ImageLoader
    ) -> RenderedImages:
        """The prompt with its images loaded and prepared.

        Raises InvalidRequest naming the image at fault, and EngineDead.
        """
        if self._renderer is None:
            raise refusal(parts[0], "this model takes no images", "unsupported_parameter")
        async with media.images(parts) as images:
            try:
                return await self._renderer.render_images(ids, images)
            except RequestRejected as error:
                param = parts[0].path if len(parts) == 1 else "messages"
                message = f"Invalid '{param}': {error}"
                raise InvalidRequest(message, param=param, code=error.code) from None


def refusal(part: ImagePart, why: str, code: str) -> InvalidRequest:
    """The error for an image that the model does not take."""
    return InvalidRequest(f"Invalid '{part.path}': {why}.", param=part.path, code=code)

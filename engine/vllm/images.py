"""Images in prompts: what a loaded model takes, and how its own processor prepares them.

The gateway's chat template leaves one placeholder per image in the prompt. vLLM's renderer, with
the processor that comes with the model, makes pixel tensors of the images and as many tokens of
each placeholder as the model reads the image from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from engine.base import EngineDead, GenerateRequest, ImageSupport, RenderedImages, RequestRejected
from engine.vllm import compat

log = logging.getLogger(__name__)

_LOGGED = 500
# Names under which configurations keep the tokens that pixels take the place of.
_TOKEN = re.compile(r"(image|img|video|vision|media_placeholder)_token_(id|index)")


def support(llm: Any) -> ImageSupport | None:
    """How the model of an ``AsyncLLM`` takes images; None when it takes none."""
    model = llm.vllm_config.model_config
    info = compat.processing_info(llm.renderer) if model.is_multimodal_model else None
    most = compat.image_limit(info) if info is not None else 0
    if not most:
        return None
    return ImageSupport(_placeholder(model), _token_ids(model.hf_config), most)


def chat_template(llm: Any) -> str | None:
    """The chat template that comes with the model's processor, where there is one."""
    info = None
    if llm.vllm_config.model_config.is_multimodal_model:
        info = compat.processing_info(llm.renderer)
    if info is None:
        return None
    try:
        processor = info.get_hf_processor()
    except Exception:
        # Some families have a processor of vLLM's own only, and no template in it.
        return None
    template = getattr(processor, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


async def render(llm: Any, ids: Sequence[int], images: Sequence[Any]) -> RenderedImages:
    """Prepare a prompt with one placeholder per image.

    The result holds all data and depends on no cache of the engine, so it may be thrown away, or
    go to another engine of the same model.

    Raises RequestRejected for images that the model's processor refuses.
    """
    prompt = {"prompt_token_ids": list(ids), "multi_modal_data": {"image": list(images)}}
    try:
        rendered = await compat.render(llm.renderer, prompt)
    except Exception as error:
        if llm.errored:
            raise EngineDead("vLLM's engine process is gone") from error
        # What a processor raises for an image that it cannot take has no common type, and its
        # text shows objects of this process.
        log.warning("vllm: a processor refused images: %s", str(error.__cause__ or error)[:_LOGGED])
        sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
        raise RequestRejected(
            f"the model's image processor refused it (size: {sizes})", param="messages"
        ) from error
    return RenderedImages(list(rendered["prompt_token_ids"]), (rendered,))


def engine_input(request: GenerateRequest, ids: list[int]) -> Any:
    """What ``AsyncLLM.generate`` takes for a request whose prompt is ``ids``."""
    from vllm.inputs import tokens_input

    if not request.images:
        return tokens_input(ids, cache_salt=request.cache_salt)
    (rendered,) = request.images
    # vLLM writes into its inputs, and this one may be needed again.
    prompt = {**rendered, "prompt_token_ids": ids}
    if request.cache_salt is not None:
        prompt["cache_salt"] = request.cache_salt
    return prompt


def advice(reason: str) -> str:
    """What to add to the failure of a start that a missing library may be the cause of."""
    if "failed to be inspected" not in reason or find_spec("torchvision") is not None:
        return ""
    return (
        " Many models that see need torchvision, which is not installed: install the build that "
        "goes with the installed torch"
    )


def _placeholder(model: Any) -> str:
    """The text that the model's class names for an image, with ``{}`` for its number."""
    first, second = (compat.image_placeholder(model, number) for number in (1, 2))
    if first is None or second is None:
        return ""
    if first == second:
        return first
    numbered = first.replace("1", "{}")
    return numbered if numbered.replace("{}", "2") == second else first


def _token_ids(config: Any) -> frozenset[int]:
    found = config.to_dict()
    return frozenset(
        value for name, value in found.items() if _TOKEN.fullmatch(name) and type(value) is int
    )

"""What is read from a model that vLLM has loaded, and what is said when it could not be."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from PIL import Image

from engine.base import EngineDead, RequestRejected
from engine.vllm import compat, images


class Config:
    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def to_dict(self) -> dict[str, Any]:
        return self._fields


class Info:
    def __init__(self, processor: Any = None, **limits: int) -> None:
        self.allowed_mm_limits = limits
        self._processor = processor

    def get_hf_processor(self) -> Any:
        if self._processor is None:
            raise RuntimeError("this family has none")
        return self._processor


class Loaded:
    """As much of an AsyncLLM as is read."""

    def __init__(self, info: Info | None, *, sees: bool = True, **config: Any) -> None:
        self.vllm_config = self.model_config = self.renderer = self
        self.is_multimodal_model = sees
        self.hf_config = Config(**config)
        self._info = info

    def get_mm_processor(self) -> Any:
        if self._info is None:
            raise ValueError("Multi-modal processor not available for text-only models")
        self.info = self._info
        return self


@pytest.fixture
def placeholders(monkeypatch: pytest.MonkeyPatch) -> dict[int, str | None]:
    texts: dict[int, str | None] = {1: "<image>", 2: "<image>"}
    monkeypatch.setattr(compat, "image_placeholder", lambda model, number: texts[number])
    return texts


def test_models_that_take_no_images(placeholders: dict[int, str | None]) -> None:
    for loaded in (
        Loaded(Info(image=4), sees=False),
        Loaded(None),
        Loaded(Info(audio=1)),
        Loaded(Info(image=0)),
    ):
        assert images.support(loaded) is None
    found = images.support(Loaded(Info(image=4)))
    assert found is not None
    assert found.most == 4


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("<image>", "<image>", "<image>"),
        ("<|image_1|>", "<|image_2|>", "<|image_{}|>"),
        ("<img1><1>", "<img2><1>", "<img1><1>"),
        (None, None, ""),
    ],
)
def test_placeholders_may_be_numbered(
    placeholders: dict[int, str | None], first: str | None, second: str | None, text: str
) -> None:
    placeholders |= {1: first, 2: second}
    found = images.support(Loaded(Info(image=1)))
    assert found is not None
    assert found.placeholder == text


def test_tokens_that_pixels_take_the_place_of(placeholders: dict[int, str | None]) -> None:
    fields = {"image_token_id": 5, "image_token_index": 6, "video_token_id": 7, "eos_token_id": 8}
    other = {"vision_config": {"image_token_id": 9}, "image_token": "<image>", "img_token_id": None}
    found = images.support(Loaded(Info(image=1), **fields, **other))
    assert found is not None
    assert found.token_ids == {5, 6, 7}


def test_the_processor_may_bring_the_template() -> None:
    class Processor:
        chat_template: Any = "own"

    processor = Processor()
    assert images.chat_template(Loaded(Info(processor, image=1))) == "own"
    processor.chat_template = {"default": "named", "other": "x"}
    assert images.chat_template(Loaded(Info(processor, image=1))) == "named"
    processor.chat_template = None
    for loaded in (
        Loaded(Info(processor, image=1)),
        Loaded(Info(image=1)),
        Loaded(None),
        Loaded(Info(Processor()), sees=False),
    ):
        assert images.chat_template(loaded) is None


async def test_a_processor_that_refuses_tells_no_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(renderer: Any, prompt: Any) -> Any:
        raise RuntimeError("<object at 0x7F00>") from ValueError("aspect ratio 1000")

    monkeypatch.setattr(compat, "render", refuse)
    loaded: Any = Loaded(Info(image=1))
    loaded.errored = False
    with pytest.raises(RequestRejected) as caught:
        await images.render(loaded, [1], [Image.new("RGB", (2000, 2))])
    assert str(caught.value) == "the model's image processor refused it (size: 2000x2)"
    assert "aspect ratio 1000" in caplog.text
    loaded.errored = True
    with pytest.raises(EngineDead):
        await images.render(loaded, [1], [Image.new("RGB", (2000, 2))])


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(pydantic.BaseModel):
        name: str

        @pydantic.field_validator("name")
        @classmethod
        def _refuse(cls, value: str) -> str:
            raise ValueError(f"Model architectures ['{value}'] failed to be inspected.")

    with pytest.raises(pydantic.ValidationError) as caught:
        Refusing(name="Llava")
    reason = compat.said(caught.value)
    assert reason == "Model architectures ['Llava'] failed to be inspected."
    assert compat.said(RuntimeError("plain")) == "plain"
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    assert "torchvision" in images.advice(reason)
    assert images.advice("out of memory") == ""
    monkeypatch.setattr(images, "find_spec", lambda name: object())
    assert images.advice(reason) == ""

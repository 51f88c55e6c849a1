"""Where images stand in prompts, for every kind of chat template, without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from media_host import data_url, encoded, picture
from server_process import info_with

from engine.base import EngineDead, ImageSupport, ModelInfo, RenderedImages, RequestRejected
from engine.fake.tokenizer import CHAT_TEMPLATE, byte_tokenizer
from gateway.chat.image_places import ImagePlaces
from gateway.chat.prompt import PromptBuilder
from gateway.chat.raw_prompt import conversation_ids
from gateway.chat.template import ChatTemplate
from gateway.errors import InvalidRequest
from gateway.media.hosts import MediaHosts
from gateway.media.loader import ImageLoader, MediaBounds
from gateway.protocol.chat_request import read_chat_request
from gateway.protocol.token_requests import read_tokenize_request

A, B = data_url(encoded(picture(1))), data_url(encoded(picture(2)))
PAD = "<|image_pad|>"
PLACE = f"<|vision_start|>{PAD}<|vision_end|>"
# As Qwen2-VL has it: text or parts, and numbers where they are asked for.
EITHER = (
    "{% set seen = namespace(n=0) %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' or 'image_url' in part %}{% set seen.n = seen.n + 1 %}"
    "{% if add_vision_id %}Picture {{ seen.n }}: {% endif %}" + PLACE + "{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As LLaVA has it: lists only, images before the text.
LISTS = (
    "{% for m in messages %}{{ m.role | upper }}: "
    "{% for part in m.content | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}"
    "{% endfor %}{% for part in m.content | selectattr('type', 'equalto', 'text') %}"
    "{{ part.text }}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# As SmolVLM has it: what comes first changes what stands before it.
ORDERED = (
    "{% for m in messages %}{{ m.role | capitalize }}"
    "{% if m.content[0].type == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end>\n{% endfor %}"
)


class Renderer:
    """Makes five tokens of each placeholder, as an engine would."""

    def __init__(self, token: int, error: Exception | None = None) -> None:
        self.token, self.error = token, error
        self.seen: list[bytes] = []

    async def render_images(
        self, prompt_ids: Sequence[int], images: Sequence[Any]
    ) -> RenderedImages:
        if self.error is not None:
            raise self.error
        self.seen = [image.tobytes() for image in images]
        ids = [t for token in prompt_ids for t in ([token] * 5 if token == self.token else [token])]
        return RenderedImages(ids, tuple(self.seen))


def tokenizer() -> Any:
    found = byte_tokenizer()
    found.add_special_tokens(["<|vision_start|>", PAD, "<|vision_end|>", "<image>"])
    return found


def seeing(template: str, placeholder: str = PLACE, most: int | None = None) -> ModelInfo:
    own = tokenizer()
    ids = frozenset({own.token_to_id(PAD), own.token_to_id("<image>")})
    info = info_with(template, images=True)
    support = ImageSupport(placeholder, ids, most)
    return replace(info, tokenizer=own, vocab_size=400, images=support)


def messages(*parts: str, role: str = "user") -> list[dict[str, Any]]:
    shown = [
        {"type": "image_url", "image_url": {"url": part, "detail": "low"}}
        if part.startswith("data:")
        else {"type": "text", "text": part}
        for part in parts
    ]
    return [{"role": role, "content": shown, "tool_call_id": "x"}]


def loader() -> ImageLoader:
    return ImageLoader(MediaHosts(()), MediaBounds(8, 2**20, 2**20), 5.0)


async def build(
    info: ModelInfo, asked: list[dict[str, Any]], **fields: Any
) -> tuple[str, Any, Renderer]:
    """The prompt's text, the prompt, and what the engine was given."""
    pad = info.tokenizer.token_to_id(PAD)
    token = pad if PAD in (info.chat_template or "") else info.tokenizer.token_to_id("<image>")
    renderer = fields.pop("renderer", None) or Renderer(token)
    builder = PromptBuilder(info, renderer=renderer)
    media = loader()
    try:
        prompt = await builder.build(read_chat_request({"messages": asked, **fields}), media)
    finally:
        builder.close()
        await media.close()
    return info.tokenizer.decode(prompt.ids, skip_special_tokens=False), prompt, renderer


@pytest.mark.parametrize(
    ("template", "written", "wants_lists", "shown"),
    [
        (
            EITHER,
            PLACE,
            False,
            "<|im_start|>user\nOne {0} two {0}<|im_end|>\n<|im_start|>assistant\n",
        ),
        (LISTS, "<image>\n", True, "USER: {0}{0}One  two  ASSISTANT:"),
        (ORDERED, "<image>", True, "User: One {0} two {0}<end>\n"),
    ],
    ids=["either", "lists", "ordered"],
)
async def test_the_template_writes_the_place(
    template: str, written: str, wants_lists: bool, shown: str
) -> None:
    info = seeing(template)
    places = ImagePlaces(ChatTemplate(template, {}), info.images, info.tokenizer)
    assert (places.written, places.wants_lists) == (written, wants_lists)
    text, prompt, renderer = await build(info, messages("One ", A, " two ", B))
    expanded = written.replace(PAD, PAD * 5).replace("<image>", "<image>" * 5)
    assert text == shown.format(expanded)
    assert renderer.seen == [picture(1).tobytes(), picture(2).tobytes()]
    assert prompt.images == tuple(renderer.seen)
    assert prompt.sampling.max_tokens == info.max_model_len - len(prompt.ids)


async def test_a_template_for_text_gets_the_models_own_placeholder() -> None:
    info = seeing(CHAT_TEMPLATE, "<image>{}")
    two = messages("first ", A, "second", B) + messages("third ", A)
    text, _, _ = await build(info, two)
    many = "<image>" * 5
    assert text == (
        f"<|im_start|>user\n{many}1\n{many}2\nfirst \nsecond<|im_end|>\n"
        f"<|im_start|>user\n{many}3\nthird <|im_end|>\n<|im_start|>assistant\n"
    )


async def test_text_alone_reaches_templates_that_take_lists() -> None:
    hello = [{"role": "user", "content": "Hello"}]
    blind = replace(seeing(LISTS), images=None)
    assert (await build(blind, hello))[0] == "USER: Hello ASSISTANT:"
    assert (await build(seeing(LISTS), hello))[0] == "USER: Hello ASSISTANT:"
    assert (await build(seeing(EITHER), hello))[0].startswith("<|im_start|>user\nHello<|im_end|>")
    # And what looks like an image there is text.
    talk = [{"role": "user", "content": f"What is {PAD}?"}]
    assert PAD in (await build(seeing(EITHER), talk))[0]


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content | tojson }}", "{{ messages[0].content }}"]
)
def test_a_list_that_is_shown_as_code_is_not_taken(template: str) -> None:
    info = seeing(template)
    places = ImagePlaces(ChatTemplate(template, {}), info.images, info.tokenizer)
    assert (places.wants_lists, places.written) == (False, "")


async def test_what_somebody_writes_is_no_place_for_an_image() -> None:
    for template, text in ((EITHER, PAD), (EITHER, PLACE), (LISTS, "<image>"), (EITHER, "<image>")):
        with pytest.raises(InvalidRequest) as caught:
            await build(seeing(template), messages(f"Look {text}", A))
        assert caught.value.param == "messages"
        assert "stands for an image" in caught.value.message


async def test_a_template_that_leaves_an_image_out_is_noticed() -> None:
    users_only = EITHER.replace("part.type == 'image'", "m.role == 'user' and part.type == 'image'")
    users_only = users_only.replace(" or 'image_url' in part", "")
    assert (await build(seeing(users_only), messages("x", A)))[1].images
    with pytest.raises(InvalidRequest, match="a place for 0 of the 1 images"):
        await build(seeing(users_only), messages("x", A, role="tool"))


async def test_numbers_and_other_variables_of_the_template_work() -> None:
    text, _, _ = await build(
        seeing(EITHER), messages(A, B), chat_template_kwargs={"add_vision_id": True}
    )
    assert "Picture 1: " in text
    assert "Picture 2: " in text


async def test_the_context_holds_the_images_too() -> None:
    info = seeing(EITHER)
    _, prompt, _ = await build(info, messages("x", A))
    room = prompt.sampling.max_tokens
    assert (await build(info, messages("x", A), max_tokens=room))[1].sampling.max_tokens == room
    with pytest.raises(InvalidRequest) as caught:
        await build(info, messages("x", A), max_tokens=room + 1)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "max_tokens")
    with pytest.raises(InvalidRequest) as caught:
        await build(replace(info, max_model_len=len(prompt.ids)), messages("x", A))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


async def test_tokenizing_counts_what_the_model_reads() -> None:
    info = seeing(EITHER)
    builder = PromptBuilder(info, renderer=Renderer(info.tokenizer.token_to_id(PAD)))
    media = loader()
    asked = {"messages": messages("x", A)}
    ids = await conversation_ids(builder, read_tokenize_request(asked), media)
    assert ids == (await builder.build(read_chat_request(asked), media)).ids
    builder.close()
    await media.close()


async def test_models_that_take_none_or_fewer_say_so() -> None:
    path = "messages[0].content[{}].image_url.url"
    for blind in (info_with(), info_with(images=True), replace(seeing(EITHER), chat_template=None)):
        with pytest.raises(InvalidRequest) as caught:
            await build(blind, messages("x", A), renderer=Renderer(0))
        assert (caught.value.param, caught.value.code) == (path.format(1), "unsupported_parameter")
    with pytest.raises(InvalidRequest, match="at most 1 images") as caught:
        await build(seeing(EITHER, most=1), messages("x", A, B))
    assert caught.value.param == path.format(2)


async def test_refusals_of_the_engine_name_the_image() -> None:
    refusing = Renderer(0, RequestRejected("too thin", param="messages"))
    with pytest.raises(InvalidRequest, match="too thin") as caught:
        await build(seeing(EITHER), messages("x", A), renderer=refusing)
    assert caught.value.param == "messages[0].content[1].image_url.url"
    with pytest.raises(InvalidRequest) as caught:
        await build(seeing(EITHER), messages(A, B), renderer=refusing)
    assert caught.value.param == "messages"
    with pytest.raises(EngineDead):
        await build(seeing(EITHER), messages(A), renderer=Renderer(0, EngineDead("gone")))


@pytest.mark.parametrize(
    ("part", "role", "param"),
    [
        ({"type": "image_url"}, "user", "image_url"),
        ({"type": "image_url", "image_url": 3}, "user", "image_url"),
        ({"type": "image_url", "image_url": {"url": 3}}, "user", "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "ftp://x/y"}}, "user", "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, "user", "image_url.url"),
        (
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            "user",
            "image_url.url",
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://" + "x" * 9000}},
            "user",
            "image_url.url",
        ),
        ({"type": "image_url", "image_url": {"url": A, "detail": "x"}}, "user", "image_url.detail"),
        ({"type": "image_url", "image_url": {"url": A}}, "system", "type"),
        ({"type": "image_url", "image_url": {"url": A}}, "assistant", "type"),
        ({"type": "input_audio"}, "user", "type"),
    ],
)
def test_what_is_no_image_part(part: dict[str, Any], role: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_chat_request({"messages": [{"role": role, "content": [part]}]})
    assert caught.value.param == f"messages[0].content[0].{param}"


def test_the_url_may_stand_alone() -> None:
    part = {"type": "image_url", "image_url": A}
    request = read_chat_request({"messages": [{"role": "user", "content": ["x", part]}]})
    assert request.messages[0]["content"][1].path == "messages[0].content[1].image_url"

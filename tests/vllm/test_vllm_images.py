"""Images end to end: the SDKs, the gateway and a real vLLM with a small model that sees.

One server serves every test; what it answers is compared with transformers running the same
checkpoint. Nothing is downloaded.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import vllm_tiny_vision as tiny
from media_host import MediaHost, data_url, encoded, media_host, picture, sends
from PIL import Image
from vllm_server import NAME, START_S, VllmServer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_vllm")]

MAX_LEN = 512
TOKENS = 8
STAY = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
A, B = picture(1), picture(2)


@dataclass
class Seeing:
    """The server, with a host that it may fetch from, and the checkpoint that it serves."""

    server: VllmServer
    sdk: openai.OpenAI
    host: MediaHost
    model: Path

    def ask(self, *parts: str | Image.Image, **fields: Any) -> Any:
        """A greedy chat completion for one message of these parts."""
        extra = {"ignore_eos": True, "return_token_ids": True, **fields.pop("extra_body", {})}
        defaults: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0, "logprobs": True}
        return self.sdk.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": content(*parts)}],
            extra_body=extra,
            **(defaults | fields),
        )

    def refusal(self, *parts: str | Image.Image, **fields: Any) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as caught:
            self.ask(*parts, **fields)
        return caught.value


def content(*parts: str | Image.Image) -> Any:
    """Content parts; a text that begins like a URL stands for the image there."""
    return [
        {"type": "text", "text": part}
        if isinstance(part, str) and not part.startswith(("data:", "http:"))
        else {"type": "image_url", "image_url": {"url": link(part)}}
        for part in parts
    ]


def link(image: str | Image.Image) -> str:
    return image if isinstance(image, str) else data_url(encoded(image))


def logprobs(answer: Any) -> list[float]:
    return [entry.logprob for entry in answer.choices[0].logprobs.content]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory, quiet_vllm: None) -> Iterator[Seeing]:
    model = tiny.write_vision_model(tmp_path_factory.mktemp("models") / "vision")
    with media_host() as host:
        host.routes = {
            "/a.png": sends(encoded(A)),
            "/away": sends(b"", status=302, Location="/a.png"),
        }
        server = VllmServer(
            tmp_path_factory.mktemp("vision-server"),
            model,
            MAX_MODEL_LEN=str(MAX_LEN),
            MEDIA_ALLOWED_HOSTS=f"127.0.0.1:{host.port}",
            MEDIA_MAX_IMAGES="4",
        )
        try:
            server.wait_started()
            with server.sdk as sdk:
                yield Seeing(server, sdk, host, model)
        finally:
            server.kill()


@functools.cache
def reference(folder: Path) -> tuple[Any, Any]:
    """The checkpoint and its processor in transformers."""
    from transformers import AutoProcessor, Idefics3ForConditionalGeneration

    model = Idefics3ForConditionalGeneration.from_pretrained(folder).float().eval()
    return model, AutoProcessor.from_pretrained(folder)


def expected(folder: Path, prompt: str, *images: Image.Image) -> tuple[list[int], list[float]]:
    """What transformers makes of a prompt: greedy tokens and their log-probabilities."""
    import torch

    model, processor = reference(folder)
    shown = {"images": [list(images)]} if images else {}
    inputs = processor(text=[prompt], return_tensors="pt", **shown)
    with torch.no_grad():
        made = model.generate(
            **inputs,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            eos_token_id=None,
        )
    tokens = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    scores = [step[0].log_softmax(-1) for step in made.logits]
    return tokens, [float(score[token]) for score, token in zip(scores, tokens, strict=True)]


@pytest.mark.parametrize(
    "parts",
    [("What is this?", A), (A, "What is this?"), ("First ", A, " then ", B, "."), (B, A), ("Hi",)],
    ids=["after", "before", "two", "two-alone", "none"],
)
def test_answers_are_those_of_transformers(seeing: Seeing, parts: tuple[Any, ...]) -> None:
    shown = "".join(part if isinstance(part, str) else tiny.IMAGE for part in parts)
    images = [part for part in parts if not isinstance(part, str)]
    tokens, scores = expected(seeing.model, STAY.format(shown), *images)
    answer = seeing.ask(*parts)
    assert answer.choices[0].token_ids == tokens
    assert logprobs(answer) == pytest.approx(scores, abs=1e-3)
    with_places = STAY.format(shown).replace(tiny.IMAGE, "")
    own = len(reference(seeing.model)[1].tokenizer(with_places)["input_ids"])
    assert answer.usage.prompt_tokens == own + len(images) * tiny.TOKENS_PER_IMAGE
    assert len(answer.prompt_token_ids) == answer.usage.prompt_tokens


def test_an_image_decides_and_always_in_the_same_way(seeing: Seeing) -> None:
    first, again, other = (seeing.ask("Look: ", image) for image in (A, A, B))
    assert logprobs(first) == pytest.approx(logprobs(again), abs=1e-4)
    assert first.choices[0].token_ids == again.choices[0].token_ids
    apart = zip(logprobs(first), logprobs(other), strict=True)
    assert max(abs(one - another) for one, another in apart) > 0.01
    # The same pixels in another file.
    as_webp = data_url(encoded(A, "WEBP", lossless=True), "image/webp")
    assert logprobs(seeing.ask("Look: ", as_webp)) == pytest.approx(logprobs(first), abs=1e-4)


def test_equal_prompts_with_other_images_share_no_cache(seeing: Seeing) -> None:
    # One block of the KV cache holds 128 tokens; the image is in the first.
    long = "abcdefgh " * 40
    alone, shared = ({"cache_salt": secrets.token_hex(8)} for _ in range(2))
    fresh = seeing.ask("Look: ", A, long, extra_body=alone)
    first = seeing.ask("Look: ", B, long, extra_body=shared)
    second, third = (seeing.ask("Look: ", A, long, extra_body=shared) for _ in range(2))
    assert first.prompt_token_ids == second.prompt_token_ids
    cached = [answer.usage.prompt_tokens_details.cached_tokens for answer in (second, third)]
    assert cached[0] == 0
    assert cached[1] >= 128
    for answer in (second, third):
        assert answer.choices[0].token_ids == fresh.choices[0].token_ids
        assert logprobs(answer) == pytest.approx(logprobs(fresh), abs=1e-4)
    assert logprobs(first) != pytest.approx(logprobs(fresh), abs=1e-3)


def test_a_stream_says_the_same(seeing: Seeing) -> None:
    whole = seeing.ask("Describe ", A, " and ", B)
    chunks = list(
        seeing.ask("Describe ", A, " and ", B, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_choices_and_scores_of_the_prompt_know_the_image(seeing: Seeing) -> None:
    drawn = seeing.ask("Look: ", A, n=2, temperature=1, seed=7)
    again = seeing.ask("Look: ", A, n=2, temperature=1, seed=7)
    made = [choice.token_ids for choice in drawn.choices]
    assert made == [choice.token_ids for choice in again.choices]
    assert made[0] != made[1]
    scored = seeing.ask("Look: ", A, " end", extra_body={"prompt_logprobs": 0})
    other = seeing.ask("Look: ", B, " end", extra_body={"prompt_logprobs": 0})
    assert len(scored.prompt_logprobs) == scored.usage.prompt_tokens
    assert scored.prompt_logprobs[-1] != other.prompt_logprobs[-1]


def test_an_image_by_url_is_fetched_from_a_listed_host(seeing: Seeing) -> None:
    by_url = seeing.ask("Look: ", seeing.host.url("/a.png"))
    assert logprobs(by_url) == pytest.approx(logprobs(seeing.ask("Look: ", A)), abs=1e-4)
    for url in (seeing.host.url("/away"), seeing.host.url("/a.png", "localhost")):
        error = seeing.refusal("Look: ", url)
        assert error.param == "messages[0].content[1].image_url.url"
        assert error.code == "invalid_image_url"


def test_anthropic_clients_see_too(seeing: Seeing) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": link(A).partition(",")[2]}
    blocks: Any = [{"type": "text", "text": "Look: "}, {"type": "image", "source": source}]
    asked: Any = {"model": NAME, "messages": [{"role": "user", "content": blocks}]}
    own = {"ignore_eos": True, "temperature": 0}
    greedy: Any = {"max_tokens": TOKENS, "extra_body": own}
    whole = seeing.ask("Look: ", A)
    with anthropic.Anthropic(
        base_url=seeing.server.url, api_key="none", max_retries=0, timeout=START_S
    ) as claude:
        message = claude.messages.create(**asked, **greedy)
        assert "".join(b.text for b in message.content) == whole.choices[0].message.content
        counted = claude.messages.count_tokens(**asked)
        assert counted.input_tokens == message.usage.input_tokens == whole.usage.prompt_tokens
        blocks[1]["source"] = {"type": "url", "url": seeing.host.url("/a.png")}
        assert claude.messages.create(**asked, **greedy).content == message.content
        blocks[1]["source"] = {**source, "data": "aGVsbG8="}
        with pytest.raises(anthropic.BadRequestError, match=r"'messages\[0\]\.content\[1\]'"):
            claude.messages.create(**asked, **greedy)


def test_responses_see_too(seeing: Seeing) -> None:
    image = {"type": "input_image", "image_url": link(A)}
    parts: Any = [{"type": "input_text", "text": "Look: "}, image]
    asked: Any = {"model": NAME, "input": [{"role": "user", "content": parts}], "temperature": 0}
    response = seeing.sdk.responses.create(
        **asked, max_output_tokens=TOKENS, extra_body={"ignore_eos": True}
    )
    assert response.output_text == seeing.ask("Look: ", A).choices[0].message.content
    image["image_url"] = data_url(b"hello")
    with pytest.raises(openai.BadRequestError) as caught:
        seeing.sdk.responses.create(**asked)
    assert caught.value.param == "input[0].content[1].image_url"


def test_tokenize_counts_what_the_model_reads(seeing: Seeing) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": content("Look: ", A)}]}
    told = httpx.post(f"{seeing.server.url}/tokenize", json=body, timeout=START_S).json()
    assert told["tokens"] == seeing.ask("Look: ", A).prompt_token_ids


def test_what_cannot_be_seen_is_refused_and_harms_nobody(seeing: Seeing) -> None:
    cut = encoded(A)[:100]
    path = "messages[0].content[1].image_url.url"
    for bad in (data_url(cut), data_url(b"GIF89a"), "data:image/png;base64,%%%", "data:text/x,"):
        assert seeing.refusal("Look: ", bad).param == path
    twice = seeing.refusal(f"An {tiny.IMAGE} of my own: ", A)
    assert (twice.param, tiny.IMAGE in str(twice)) == ("messages", True)
    many = seeing.refusal(*[A] * 5)
    assert many.param == "messages[0].content[4].image_url.url"
    # With its image the prompt is longer than the text alone.
    whole = seeing.ask("Look: ", A).usage.prompt_tokens
    fits = MAX_LEN - whole
    assert seeing.ask("Look: ", A, max_tokens=fits).usage.completion_tokens == fits
    long = seeing.refusal("Look: ", A, max_tokens=fits + 1)
    assert (long.code, long.param) == ("context_length_exceeded", "max_tokens")
    # Shapes that have crashed servers before: answered or refused, and the server lives on.
    for width, height in ((1, 1), (1, 3), (3, 1), (2000, 1), (1, 2000)):
        odd = data_url(encoded(Image.new("RGB", (width, height), (200, 10, 10))))
        body = {
            "model": NAME,
            "max_tokens": 1,
            "messages": [{"role": "user", "content": content(odd)}],
        }
        url = f"{seeing.server.url}/v1/chat/completions"
        assert httpx.post(url, json=body, timeout=START_S).status_code in (200, 400)
    # Text alone may say what it likes.
    assert seeing.ask(f"The tag {tiny.IMAGE} is old.").usage.completion_tokens == TOKENS
    assert httpx.get(f"{seeing.server.url}/health/ready", timeout=START_S).status_code == 200

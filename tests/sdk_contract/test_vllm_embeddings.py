"""Embeddings over HTTP: a pooling model on vLLM as the OpenAI SDK sees it, and every field on it
and on the ONNX engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from encoder_checkpoints import (
    HIDDEN,
    LONGEST,
    TEXTS,
    encode,
    expected,
    word_piece,
    write_encoder,
)
from server_process import ServerProcess
from table_encoder import write_table_encoder
from test_compatibility import check_fields
from test_node_sdk import KEY, node, run_node  # noqa: F401

ROUTE = "/v1/embeddings"
NAME = "embedder"
SHORT = 8
# vLLM's kernels sum in another order than transformers'.
CLOSE = 1e-3


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pooling") / "bert"
    # One head of 32: vLLM's CPU attention has no kernel for narrower ones.
    return write_encoder(folder, matryoshka_dimensions=[SHORT], num_attention_heads=1)


@pytest.fixture(scope="module")
def sdk(pooling_server: ServerProcess) -> Iterator[openai.OpenAI]:
    base_url = f"{pooling_server.url}/v1"
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def whole(bert: Path) -> np.ndarray:
    """What transformers makes of the texts."""
    return expected(bert, [encode(text) for text in TEXTS])


def farthest(answer: Any, wanted: np.ndarray) -> float:
    got = np.array([item.embedding for item in answer.data], np.float32)
    assert got.shape == wanted.shape
    return float(np.linalg.norm(got - wanted, axis=1).max())


@pytest.mark.parametrize("form", ["base64 by default", "float"])
def test_vectors_are_those_of_transformers(
    sdk: openai.OpenAI, whole: np.ndarray, form: str
) -> None:
    options: dict[str, Any] = {"encoding_format": "float"} if form == "float" else {}
    answer = sdk.embeddings.create(model=NAME, input=TEXTS, **options)
    assert farthest(answer, whole) < CLOSE
    assert [item.index for item in answer.data] == list(range(len(TEXTS)))
    assert answer.model == NAME
    assert answer.usage.prompt_tokens == sum(len(encode(text)) for text in TEXTS)


def test_token_ids_mean_the_same_as_texts(sdk: openai.OpenAI, whole: np.ndarray) -> None:
    ids = [encode(text) for text in TEXTS]
    assert farthest(sdk.embeddings.create(model=NAME, input=ids), whole) < CLOSE
    assert farthest(sdk.embeddings.create(model=NAME, input=ids[1]), whole[1:2]) < CLOSE


def test_shorter_vectors(sdk: openai.OpenAI, whole: np.ndarray) -> None:
    cut = whole[:, :SHORT] / np.linalg.norm(whole[:, :SHORT], axis=1, keepdims=True)
    answer = sdk.embeddings.create(model=NAME, input=TEXTS, dimensions=SHORT)
    assert farthest(answer, cut) < CLOSE
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model=NAME, input=TEXTS, dimensions=SHORT + 1)
    assert caught.value.param == "dimensions"


def test_a_text_that_is_too_long_is_refused_and_cut_on_request(sdk: openai.OpenAI) -> None:
    long = " ".join(TEXTS * 3)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model=NAME, input=["hello", long])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input[1]")
    extra = {"truncate_prompt_tokens": -1}
    answer = sdk.embeddings.create(model=NAME, input=long, extra_body=extra)
    assert answer.usage.prompt_tokens == LONGEST
    assert len(answer.data[0].embedding) == HIDDEN


def test_it_does_not_chat(sdk: openai.OpenAI) -> None:
    says: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model=NAME, messages=says)
    assert ROUTE in str(caught.value)


def test_the_sdk_for_node(node: str, pooling_server: ServerProcess) -> None:  # noqa: F811
    slow = {"SLOW_GATEWAY_URL": pooling_server.url, "GATEWAY_KEY": KEY}
    run_node(node, {"GATEWAY_URL": pooling_server.url, **slow}, "embeddings.test.mjs")


def test_every_field_on_vllm(pooling_server: ServerProcess) -> None:
    check_fields(pooling_server, ROUTE)


def test_every_field_on_the_onnx_engine(tmp_path: Path) -> None:
    sizes = {"vocabulary": 300, "dimension": HIDDEN, "longest": LONGEST}
    model = write_table_encoder(
        tmp_path / "table", word_piece(), **sizes, matryoshka_dimensions=[SHORT]
    )
    settings = {"ENGINE": "onnx", "MODEL_NAME": str(model), "SERVED_MODEL_NAME": NAME}
    server = ServerProcess(tmp_path, **settings)
    try:
        check_fields(server.wait_ready(), ROUTE)
    finally:
        server.kill()

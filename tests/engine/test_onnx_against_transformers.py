"""The engine's numbers are those of transformers in fp32, chunked, batched and cached."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_calls import ask, prompt
from random_llama import Shape, write_prepared

torch = pytest.importorskip("torch")

TOLERANCE = 2e-4
"""On log-probabilities; fp32 sums in another order."""

SHAPE = Shape(layers=3, heads=6, kv_heads=2, hidden=96, intermediate=160)


@pytest.fixture(scope="module")
def reference() -> Any:
    """A random LlamaForCausalLM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=SHAPE.vocab,
            hidden_size=SHAPE.hidden,
            intermediate_size=SHAPE.intermediate,
            num_hidden_layers=SHAPE.layers,
            num_attention_heads=SHAPE.heads,
            num_key_value_heads=SHAPE.kv_heads,
            head_dim=SHAPE.head_dim,
            max_position_embeddings=SHAPE.max_len,
            rope_theta=SHAPE.rope_theta,
            rms_norm_eps=SHAPE.rms_eps,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def twin(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder with the weights of ``reference``."""
    weights = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    return write_prepared(tmp_path_factory.mktemp("twin"), SHAPE, weights)


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """More only get into each other's way on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def log_softmax(reference: Any, tokens: list[int]) -> np.ndarray:
    """[len(tokens), vocab]: row i predicts token i + 1."""
    with torch.no_grad():
        logits = reference(torch.tensor([tokens])).logits[0].double()
    return np.asarray(torch.log_softmax(logits, dim=-1))


@pytest.mark.parametrize("max_prefill_chunk", [16, 512])
async def test_greedy_tokens_and_logprobs(
    start_onnx: Any, reference: Any, twin: Path, max_prefill_chunk: int
) -> None:
    engine = await start_onnx(twin, options={"max_prefill_chunk": max_prefill_chunk})
    prompts = [prompt(length, salt=length) for length in (1, 16, 77, 130)]
    prompts += [[*prompts[-1][:100], *prompt(20)]]  # finds a cached prefix
    answers = await asyncio.gather(
        *(ask(engine, ids, max_tokens=20, logprobs=20) for ids in prompts)
    )
    for ids, answer in zip(prompts, answers, strict=True):
        everything = log_softmax(reference, [*ids, *answer.token_ids])
        entries = [entry for delta in answer.deltas for entry in delta.logprobs]
        for at, entry in enumerate(entries, start=len(ids) - 1):
            expected = everything[at]
            assert entry.logprob == pytest.approx(expected[entry.token_id], abs=TOLERANCE)
            assert expected[entry.token_id] >= expected.max() - TOLERANCE
            listed = [token for token, _ in entry.top]
            assert [v for _, v in entry.top] == pytest.approx(expected[listed], abs=TOLERANCE)


async def test_prompt_logprobs(start_onnx: Any, reference: Any, twin: Path) -> None:
    engine = await start_onnx(twin)
    ids = prompt(120)
    answer = await ask(engine, ids, max_tokens=1, prompt_logprobs=0)
    expected = log_softmax(reference, ids)
    entries = answer.deltas[0].prompt_logprobs
    got = [entry.logprob for entry in entries[1:]]
    wanted = [expected[i, token] for i, token in enumerate(ids[1:])]
    assert got == pytest.approx(wanted, abs=TOLERANCE)

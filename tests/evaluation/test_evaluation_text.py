"""Perplexity, agreement and divergence against transformers and against their definitions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_llama import Shape, random_weights, write_prepared

from engine.evaluation.divergence import Totals, add
from engine.evaluation.text_score import TextScore, score_text
from engine.evaluation.variants import Variant, open_all
from engine.evaluation.windows import windows
from engine.onnx.prepared import PreparedModel

torch = pytest.importorskip("torch")

SHAPE = Shape(vocab=320, max_len=256)
TOKENS = np.random.default_rng(5).integers(0, SHAPE.vocab, 500).tolist()
CONTEXT, STRIDE = 160, 60


def transformers_llama(weights: dict[str, np.ndarray]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=SHAPE.vocab,
                hidden_size=SHAPE.hidden,
                intermediate_size=SHAPE.intermediate,
                num_hidden_layers=SHAPE.layers,
                num_attention_heads=SHAPE.heads,
                num_key_value_heads=SHAPE.kv_heads,
                head_dim=SHAPE.head_dim,
                max_position_embeddings=SHAPE.max_len,
                rms_norm_eps=SHAPE.rms_eps,
                rope_parameters={"rope_type": "default", "rope_theta": SHAPE.rope_theta},
                tie_word_embeddings=False,
                attn_implementation="eager",
            )
        )
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


def predictions(model: Any) -> np.ndarray:
    """Log-probabilities [499, vocab] of tokens 1 to 499: the windows written down by hand."""
    rows = []
    scored = 1
    with torch.no_grad():
        for begin in range(0, len(TOKENS), STRIDE):
            window = TOKENS[begin : begin + CONTEXT]
            logits = model(torch.tensor([window])).logits[0].double()
            found = torch.log_softmax(logits, dim=-1).numpy()
            rows.append(found[scored - 1 - begin : len(window) - 1])
            scored = begin + len(window)
            if scored == len(TOKENS):
                break
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_scores_are_those_of_transformers(one_thread: None, tmp_path: Path) -> None:
    original = random_weights(SHAPE)
    rng = np.random.default_rng(1)
    rough = {
        name: (array + 0.02 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in original.items()
    }
    expected = [predictions(transformers_llama(weights)) for weights in (original, rough)]
    folders = {"rough": rough, "fp32": original}
    variants = [
        Variant(name, PreparedModel.read(write_prepared(tmp_path / name, SHAPE, weights)))
        for name, weights in folders.items()
    ]
    sessions = open_all(variants, CONTEXT, threads=1)
    parts: list[float] = []
    found = score_text(
        sessions, TOKENS, reference="fp32", context=CONTEXT, stride=STRIDE, report=parts.append
    )
    came = np.asarray(TOKENS[1:])
    picked = np.arange(len(came)), came
    truth, other = expected
    assert len(truth) == len(came)
    for name, logprobs in (("fp32", truth), ("rough", other)):
        totals = found[name].totals
        assert totals.tokens == len(came)
        perplexity = math.exp(-logprobs[picked].mean())
        assert totals.perplexity == pytest.approx(perplexity, rel=1e-4)
    totals = found["rough"].totals
    added = truth[picked] - other[picked]
    kl = (np.exp(truth) * (truth - other)).sum(axis=1).mean()
    same = (truth.argmax(axis=1) == other.argmax(axis=1)).mean()
    assert kl > 1e-3
    assert totals.mean_kl == pytest.approx(kl, rel=1e-3)
    assert totals.agreement == pytest.approx(same, abs=2.5 / len(came))  # but for near ties
    assert 0.2 < same < 1
    assert totals.added_nll == pytest.approx(added.mean(), abs=1e-4)
    error = added.std(ddof=1) / math.sqrt(len(added))
    assert totals.added_nll_error == pytest.approx(error, rel=1e-3)
    own = found["fp32"].totals
    assert (own.mean_kl, own.agreement, own.added_nll) == (0, 1, 0)
    assert parts[-1] == 1
    assert parts == sorted(parts)


def test_without_a_reference_only_perplexity_is_known(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "one", SHAPE, random_weights(SHAPE))
    sessions = open_all([Variant("one", PreparedModel.read(folder))], 64, threads=1)
    found: TextScore = score_text(sessions, TOKENS[:40], reference=None, context=64, stride=32)[
        "one"
    ]
    assert found.totals.tokens == 39
    assert found.totals.kl == found.totals.agreed == 0
    assert found.tokens_run == 39
    assert found.totals.perplexity > 1


@pytest.mark.parametrize(
    ("count", "context", "stride"),
    [(2, 8, 4), (8, 8, 4), (9, 8, 4), (100, 10, 9), (100, 10, 1), (101, 64, 32), (17, 16, 15)],
)
def test_every_token_but_the_first_is_scored_once(count: int, context: int, stride: int) -> None:
    scored: list[int] = []
    for window in windows(count, context, stride):
        assert window.end - window.begin <= context
        assert window.first > window.begin  # a scored token has one before it
        if window.begin:
            assert window.first - window.begin >= context - stride
        scored += range(window.first, window.end)
    assert scored == list(range(1, count))


@pytest.mark.parametrize("stride", [0, 8, 9])
def test_strides_that_would_lose_tokens_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 7"):
        list(windows(20, 8, stride))


def test_the_divergence_of_two_known_distributions() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    totals = Totals()
    rows = 70  # more than are taken at once
    # A constant added to logits changes no probability.
    own = np.tile(np.log(q) + 7, (rows, 1)).astype(np.float32)
    reference = np.tile(np.log(p) - 300, (rows, 1)).astype(np.float32)
    add(totals, own, np.zeros(rows, np.int64), reference)
    assert totals.tokens == rows
    assert totals.perplexity == pytest.approx(4, rel=1e-5)
    assert totals.mean_kl == pytest.approx((p * np.log(p / q)).sum(), rel=1e-4)
    assert totals.agreement == 0
    assert totals.added_nll == pytest.approx(math.log(2), rel=1e-4)
    assert totals.added_nll_error == pytest.approx(0, abs=1e-4)

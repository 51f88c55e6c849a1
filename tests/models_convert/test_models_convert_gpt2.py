"""GPT-2 through an exporter of our own: its numbers, its variants, and served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from convert_gpt2 import write_gpt2
from convert_runner import Runner, relative_error
from server_process import ServerProcess

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.models.convert import prepare
from engine.models.graph import UnsupportedGraph
from engine.onnx.prepared import Manifest, PreparedModel

TOLERANCE = 1e-4
"""On logits of about 10 at most; fp32 sums in another order."""
VARIANT_BOUNDS = {"int8": 0.06, "int8_block": 0.06, "int4": 0.5}
TEXT = "Once upon a time there was a gateway"


@pytest.fixture(scope="module")
def checkpoint(convert_extra: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "distil")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def fp32(checkpoint: Path, cache: Path) -> Path:
    """Converted as MODEL_NAME is."""
    return prepare(str(checkpoint), "fp32", EngineConfig(cache_dir=cache), lambda *_: None)


@pytest.fixture(scope="module")
def original(checkpoint: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()


def prompts(seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 320, size).tolist() for size in (60, 17, 33, 5)]


def logits_of(original: Any, tokens: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        found: np.ndarray = original(torch.tensor([tokens])).logits[0].numpy()
    return found


def greedy_of(original: Any, tokens: list[int], count: int) -> list[int]:
    import torch

    found = original.generate(
        torch.tensor([tokens]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return [int(token) for token in found[0, len(tokens) :]]


def test_chunked_and_batched_logits_are_those_of_transformers(fp32: Path, original: Any) -> None:
    runner = Runner(fp32)
    following = [7, 8, 9, 10]
    got = [runner.prefill(i, p, chunk=16) for i, p in enumerate(prompts())]
    first = runner.decode(following)
    second = runner.decode(following)
    for i, (prompt, token) in enumerate(zip(prompts(), following, strict=True)):
        wanted = logits_of(original, [*prompt, token, token])
        assert np.abs(wanted).max() > 1
        assert np.abs(got[i] - wanted[:-2]).max() < TOLERANCE
        assert np.abs(first[i] - wanted[-2]).max() < TOLERANCE
        assert np.abs(second[i] - wanted[-1]).max() < TOLERANCE


def test_greedy_tokens_up_to_the_last_position(fp32: Path, original: Any) -> None:
    prompt = prompts()[0]
    count = Manifest.read(fp32).max_model_len - len(prompt)
    found = Runner(fp32, max_len=256).greedy(prompt, count)
    assert found == greedy_of(original, prompt, count)


@pytest.mark.parametrize("precision", VARIANT_BOUNDS)
def test_variants_are_near_and_do_not_depend_on_mates_or_chunks(
    fp32: Path, tmp_path: Path, precision: Any
) -> None:
    import onnx_ir as ir

    from engine.models.quantize import quantize

    model = ir.load(fp32 / "model.onnx")
    quantize(model, precision)
    products = [node.op_type for node in model.graph]
    kind = "MatMulInteger" if precision == "int8" else "MatMulNBits"
    assert products.count("MatMul") == 0
    assert products.count(kind) == 3 * 4 + 1  # four per layer, and the vocabulary
    ir.save(model, tmp_path / "model.onnx")
    (tmp_path / "gateway_model.json").write_bytes((fp32 / "gateway_model.json").read_bytes())

    runner = Runner(tmp_path)
    mine, *others = prompts()
    exact = Runner(fp32).prefill(0, mine)
    alone = runner.prefill(0, mine)
    step = runner.decode([7])[0]
    assert 0 < relative_error(alone, exact) < VARIANT_BOUNDS[precision]
    runner.reset()
    chunked = runner.prefill(0, mine, chunk=16)
    for slot, other in enumerate(others, start=1):
        runner.prefill(slot, other)
    batched = runner.decode([7, 8, 9, 10])[0]
    if precision == "int8":
        assert np.array_equal(chunked, alone)
        assert np.array_equal(batched, step)
    assert relative_error(chunked, alone) < 1e-5
    assert relative_error(batched, step) < 1e-5


def test_the_comparison_sees_what_rounding_costs(
    checkpoint: Path, fp32: Path, tmp_path: Path
) -> None:
    import onnx_ir as ir

    from engine.models.compare import compare
    from engine.models.quantize import quantize

    rounded = tmp_path / "int4"
    shutil.copytree(fp32, rounded)
    model = ir.load(fp32 / "model.onnx")
    quantize(model, "int4")
    ir.save(model, rounded / "model.onnx")
    questions = tmp_path / "questions.json"
    found = []
    for folder in (fp32, rounded):
        questions.write_text(json.dumps({"prompts": [TEXT, "The"], "tokens": 16}))
        compare(checkpoint, folder, questions, lambda _: None)
        found.append(json.loads(questions.read_text())["rows"])
    for exact, coarse in zip(*found, strict=True):
        assert exact["same_tokens"] == 16
        assert exact["max_logit_difference"] < TOLERANCE
        assert coarse["max_logit_difference"] > 100 * exact["max_logit_difference"]
        assert 0.01 < coarse["relative_error"] < VARIANT_BOUNDS["int4"]
    questions.write_text(json.dumps({"prompts": ["The " * 200], "tokens": 16}))
    with pytest.raises(EngineStartError, match=r"prompt 1 has \d+ tokens; .* with --tokens"):
        compare(checkpoint, fp32, questions, lambda _: None)


def test_the_folder_tells_what_the_engine_needs(fp32: Path) -> None:
    model = PreparedModel.read(fp32)
    manifest = model.manifest
    assert (manifest.num_layers, manifest.num_kv_heads, manifest.head_dim) == (3, 4, 24)
    assert manifest.architecture == "GPT2LMHeadModel"
    assert manifest.eos_token_ids == (320,)
    assert manifest.max_model_len == 256
    assert model.chat_template is None


@pytest.fixture(scope="module")
def server(
    checkpoint: Path, cache: Path, fp32: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """The checkpoint as MODEL_NAME; ``fp32`` has left the conversion in the cache."""
    running = ServerProcess(
        tmp_path_factory.mktemp("server"),
        ENGINE="onnx",
        MODEL_NAME=str(checkpoint),
        ONNX_PRECISION="fp32",
        MODEL_CACHE_DIR=str(cache),
        MAX_NUM_SEQS="2",
    )
    try:
        yield running.wait_ready()
    finally:
        running.kill()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_completions_stream_what_transformers_says(
    client: openai.OpenAI, original: Any, fp32: Path
) -> None:
    tokenizer = PreparedModel.read(fp32).tokenizer
    prompt = tokenizer.encode(TEXT).ids
    wanted = greedy_of(original, prompt, 24)
    assert 320 not in wanted, "the end token would cut the answer: choose another TEXT"
    model = client.models.list().data[0].id
    call: dict[str, Any] = {"model": model, "prompt": TEXT, "max_tokens": 24, "temperature": 0}
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**call, stream=True)]
    assert "".join(pieces) == tokenizer.decode(wanted)
    whole = client.completions.create(**call)
    assert whole.choices[0].text == "".join(pieces)
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == len(prompt)


def test_a_chat_without_a_template_is_a_clear_error(client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    with pytest.raises(openai.BadRequestError, match="chat template"):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"activation_function": "swish"}, "its activation function is swish"),
        ({"add_cross_attention": True}, "attends to an encoder"),
        ({"n_head": 5}, "n_embd 96 has no 5 heads"),
        ({"n_layer": 4}, r"have no h\.3\."),
        ({"vocab_size": 400}, r"wte\.weight has the shape \[321, 96\] .* \[400, 96\]"),
        ({"n_embd": "96"}, "n_embd is not a positive integer"),
    ],
)
def test_what_the_exporter_cannot_write_is_said(
    checkpoint: Path, config: dict[str, Any], said: str
) -> None:
    from engine.models import gpt2

    sizes = {"n_layer": 3, "n_head": 4, "n_embd": 96, "n_positions": 256, "vocab_size": 321}
    with pytest.raises(UnsupportedGraph, match=said):
        gpt2.decoder(checkpoint, sizes | config)

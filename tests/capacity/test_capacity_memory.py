"""What fits: the phi-2 log of a real L4, and messages that say by how much and what would."""

from __future__ import annotations

from pathlib import Path

import capacity_models as known
import pytest

from engine.capacity import CapacityError, DoesNotFit
from engine.capacity.fit import check
from engine.capacity.gpus import GIB, GPUS, find_gpu
from engine.capacity.memory import Serving, budget
from engine.capacity.model import open_model
from engine.capacity.roofline import GpuStep, Work

# vLLM 0.5.4 on an L4: gpu_memory_utilization 0.9, graphs outside of it, 4 GiB of swap space.
LOG = Serving(utilization=0.9, cuda_graphs=0)
LOGGED_BLOCKS, LOGGED_SWAP_BLOCKS, LOGGED_WEIGHTS_GIB = 2881, 819, 5.1933
LOGGED_TOKENS_PER_S = 42.0


def test_the_phi_2_log_is_reproduced(tmp_path: Path) -> None:
    model = open_model(known.written(tmp_path, known.PHI_2))
    found = budget(model, find_gpu("l4"), LOG)

    assert found.layout.block_bytes == 16 * 327_680
    assert 4 * GIB // found.layout.block_bytes == LOGGED_SWAP_BLOCKS
    assert found.weights / GIB == pytest.approx(LOGGED_WEIGHTS_GIB, rel=0.005)
    assert found.blocks == pytest.approx(LOGGED_BLOCKS, rel=0.03)
    # What the log leaves over beside weights and blocks: 0.57 GiB.
    assert found.overhead / GIB == pytest.approx(0.566, abs=0.15)


def test_its_decoding_speed_is_reproduced(tmp_path: Path) -> None:
    step = GpuStep(open_model(known.written(tmp_path, known.PHI_2)), find_gpu("l4"), LOG)
    assert 1 / step(Work(1, 100, 100)) == pytest.approx(LOGGED_TOKENS_PER_S, rel=0.1)


def test_a_model_that_does_not_fit_says_by_how_much_and_what_would(tmp_path: Path) -> None:
    model = open_model(known.written(tmp_path, known.LLAMA_8B))
    with pytest.raises(DoesNotFit) as error:
        check(model, find_gpu("t4"), Serving(), 4096)
    said = str(error.value)
    assert "does not fit on NVIDIA T4" in said
    assert "too little per GPU" in said
    for remedy in ("--quantization fp8", "--quantization awq", "--tensor-parallel 2", "--gpu l4"):
        assert remedy in said
    # Each remedy that it names is one.
    assert check(model, find_gpu("t4"), Serving(quantization="awq"), 4096).blocks > 0
    assert check(model, find_gpu("t4"), Serving(tensor_parallel=2), 4096).blocks > 0
    assert check(model, find_gpu("l4"), Serving(), 4096).blocks > 0


def test_a_sequence_that_does_not_fit_says_how_long_one_may_be(tmp_path: Path) -> None:
    model = open_model(known.written(tmp_path, known.LLAMA_8B))
    with pytest.raises(DoesNotFit, match=r"sequences of \d+ tokens or less") as error:
        check(model, find_gpu("l4"), Serving(), 131_072)
    longest = int(str(error.value).split("sequences of ")[1].split()[0])
    assert check(model, find_gpu("l4"), Serving(), longest).longest == longest
    with pytest.raises(DoesNotFit):
        check(model, find_gpu("l4"), Serving(), longest + 1)


def test_an_unknown_gpu_lists_the_known_ones() -> None:
    with pytest.raises(CapacityError) as error:
        find_gpu("rtx-9000")
    for name in GPUS:
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("said", "meant"), [("L4", "l4"), ("A100-80GB", "a100-80"), ("nvidia_tesla_t4", "t4")]
)
def test_gpu_names_are_read_leniently(said: str, meant: str) -> None:
    assert find_gpu(said).name == meant


def test_native_fp8_multiplies_twice_as_fast_and_weight_only_does_not(tmp_path: Path) -> None:
    model = open_model(known.written(tmp_path, known.LLAMA_8B))
    prompt = Work(prefill=2048, prefill_pairs=2048 * 1024)

    def multiplying(gpu: str, method: str) -> float:
        step = GpuStep(model, find_gpu(gpu), Serving(quantization=method))
        return step.bounds(prompt)[1]

    assert multiplying("h100", "fp8") < 0.6 * multiplying("h100", "none")
    assert multiplying("a100-80", "fp8") == multiplying("a100-80", "none")
    assert multiplying("a100-80", "awq") == multiplying("a100-80", "none")
    assert multiplying("a100-80", "int8") < 0.6 * multiplying("a100-80", "none")

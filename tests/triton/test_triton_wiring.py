"""An ensemble whose models do not fit together is refused, and told what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from triton_models import write_encoder

from deploy.triton.errors import TritonError
from deploy.triton.kinds import Wishes, plan
from deploy.triton.wiring import check_ensemble

Configs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Configs:
    """The configs of an embedding ensemble, by name."""
    folder = write_encoder(tmp_path_factory.mktemp("models") / "e")
    return {part.name: part.config for part in plan(str(folder), Wishes())}


def steps(configs: Configs) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = configs["e"]["ensemble_scheduling"]["step"]
    return found


def make_twice(configs: Configs) -> None:
    steps(configs)[1]["output_map"]["last_hidden_state"] = "attention_mask"


def feed_nothing(configs: Configs) -> None:
    del steps(configs)[2]["input_map"]["attention_mask"]


def take_unmade(configs: Configs) -> None:
    steps(configs)[2]["input_map"]["attention_mask"] = "mask"


def change_type(configs: Configs) -> None:
    configs["e_pooling"]["input"][0]["data_type"] = "TYPE_FP16"


def change_size(configs: Configs) -> None:
    configs["e_pooling"]["input"][0]["dims"] = [-1, 7]


def change_rank(configs: Configs) -> None:
    configs["e_pooling"]["input"][0]["dims"] = [6]


def wire_a_cycle(configs: Configs) -> None:
    tokenizer, encoder, _ = steps(configs)
    configs["e_encoder"]["input"].append({"name": "back", "data_type": "TYPE_FP32", "dims": [6]})
    encoder["input_map"]["back"] = "embedding"
    assert tokenizer["model_name"] == "e_tokenizer"


def map_strange(configs: Configs) -> None:
    steps(configs)[1]["input_map"]["segment"] = "input_ids"


def name_absent(configs: Configs) -> None:
    steps(configs)[1]["model_name"] = "other"


def call_itself(configs: Configs) -> None:
    steps(configs)[1]["model_name"] = "e"


def leave_unused(configs: Configs) -> None:
    configs["e"]["input"].append({"name": "spare", "data_type": "TYPE_BOOL", "dims": [1]})


def raise_batch(configs: Configs) -> None:
    configs["e"]["max_batch_size"] = 64


def answer_unmade(configs: Configs) -> None:
    configs["e"]["output"].append({"name": "score", "data_type": "TYPE_FP32", "dims": [1]})


def make_optional(configs: Configs) -> None:
    configs["e"]["input"][0]["optional"] = True


def queue_here(configs: Configs) -> None:
    configs["e"]["dynamic_batching"] = {"max_queue_delay_microseconds": 5}


def no_steps(configs: Configs) -> None:
    steps(configs).clear()


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (make_twice, "makes the tensor attention_mask twice, by step 1"),
        (feed_nothing, "does not feed attention_mask of step 3 (e_pooling)"),
        (take_unmade, "gives mask to step 3 (e_pooling), and nothing makes it"),
        (change_type, "from step 2 (e_encoder) as TYPE_FP32 to step 3 (e_pooling), which takes"),
        (change_size, "as [-1, -1, 6] to step 3 (e_pooling), which takes [-1, -1, 7]"),
        (change_rank, "as [-1, -1, 6] to step 3 (e_pooling), which takes [-1, 6]"),
        (wire_a_cycle, "has a cycle: step 2 (e_encoder), step 3 (e_pooling) wait for each other"),
        (map_strange, "maps segment in step 2 (e_encoder), which has no such input"),
        (name_absent, "step 2 (other), a model that is not in the repository"),
        (call_itself, "has itself as step 2"),
        (leave_unused, "takes spare and no step uses it"),
        (raise_batch, "takes batches of 64 and step 1 (e_tokenizer) of at most 8"),
        (answer_unmade, "gives score to the response, and nothing makes it"),
        (make_optional, "may be called without text_input"),
        (queue_here, "has a dynamic_batching"),
        (no_steps, "has no steps"),
    ],
)
def test_a_wrong_ensemble(sound: Configs, spoil: Callable[[Configs], None], wanted: str) -> None:
    configs = copy.deepcopy(sound)
    check_ensemble(configs["e"], configs)
    spoil(configs)
    with pytest.raises(TritonError) as refused:
        check_ensemble(configs["e"], configs)
    assert wanted in str(refused.value)


def test_a_decoder_is_wired_around_its_options() -> None:
    configs = {part.name: part.config for part in plan("bundled", Wishes())}
    check_ensemble(configs["bundled"], configs)
    generate = configs["bundled_generate"]
    assert generate["model_transaction_policy"] == {"decoupled": True}
    assert {e["name"] for e in generate["input"] if e.get("optional")} == {
        "stream",
        "sampling_parameters",
    }


def test_an_encoder_that_pools_itself_needs_no_pooling(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "e")
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path)
    pooled = onnx.helper.make_node(
        "ReduceL2", ["last_hidden_state", "axes"], ["sentence_embedding"], keepdims=0
    )
    model.graph.node.append(pooled)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("sentence_embedding", onnx.TensorProto.FLOAT, ["b", 6])
    )
    onnx.save(model, path)
    configs = {part.name: part.config for part in plan(str(folder), Wishes(backend="onnxruntime"))}
    assert list(configs) == ["e_tokenizer", "e_encoder", "e"]
    assert configs["e_encoder"]["backend"] == "onnxruntime"
    check_ensemble(configs["e"], configs)

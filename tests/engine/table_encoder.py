"""An encoder made without torch: token vectors are rows of a random table, averaged."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tokenizers import Tokenizer


def table(vocabulary: int, dimension: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((vocabulary, dimension)).astype(np.float32)


def write_table_encoder(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    vocabulary: int,
    dimension: int,
    longest: int,
    products: int = 0,
    **config: Any,
) -> Path:
    """A folder with a ready graph.

    ``products`` adds that many matrix products, for a model that takes its time; ``config``
    are further entries of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    helper, types = onnx.helper, onnx.TensorProto
    names = [f"hidden{place}" for place in range(products)] + ["last_hidden_state"]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], names[:1])]
    nodes += [
        helper.make_node("MatMul", [before, "turn"], [after])
        for before, after in itertools.pairwise(names)
    ]
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((dimension, dimension)))[0]
    constants = {"table": table(vocabulary, dimension)}
    if products:
        constants["turn"] = turn.astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("input_ids", types.INT64, ["b", "s"])],
        [helper.make_tensor_value_info("last_hidden_state", types.FLOAT, ["b", "s", dimension])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "model.onnx")
    sizes = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": dimension,
        "vocab_size": vocabulary,
        "max_position_embeddings": longest,
    }
    (folder / "config.json").write_text(json.dumps(sizes | config))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def averaged(
    prompts: list[list[int]], *, vocabulary: int, dimension: int, normalize: bool = True
) -> np.ndarray:
    """The vectors that the model gives, float32 [n, dimension]."""
    rows = np.stack([table(vocabulary, dimension)[prompt].mean(axis=0) for prompt in prompts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalize else rows

"""Small ONNX models with random weights, and what they compute, in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["[PAD]", "[UNK]", "a", "model", "server", "joins", "requests", "into", "one", "batch"]
HIDDEN = 6
LONGEST = 40
WEIGHTS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
TABLE = np.random.default_rng(1).standard_normal((len(WORDS), HIDDEN)).astype(np.float32)


def value(name: str, kind: int, dims: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def save(path: Path, graph: onnx.GraphProto, *, external: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    options = {"location": "weights.bin", "size_threshold": 64} if external else {}
    onnx.save(model, path, save_as_external_data=external, **options)
    return path


def write_net(path: Path, *, external: bool = False, batch: int | str = "batch") -> Path:
    """x [batch, 4] @ WEIGHTS * scale [batch], the sum of each row, and a text passed through."""
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Unsqueeze", ["scale", "axis"], ["column"]),
            helper.make_node("Mul", ["product", "column"], ["y"]),
            helper.make_node("ReduceSum", ["y", "axis"], ["total"], keepdims=0),
            helper.make_node("Identity", ["label"], ["named"]),
        ],
        "net",
        [
            value("x", T.FLOAT, [batch, 4]),
            value("scale", T.FLOAT, [batch]),
            value("label", T.STRING, [batch]),
        ],
        [
            value("y", T.FLOAT, [batch, 3]),
            value("total", T.FLOAT, [batch]),
            value("named", T.STRING, [batch]),
        ],
        [numpy_helper.from_array(WEIGHTS, "weights"), axis],
    )
    return save(path, graph, external=external)


def write_lookup(path: Path) -> Path:
    """A row of TABLE for one id, without a batch dimension; raises for an id that is too large."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "id"], ["row"])],
        "lookup",
        [value("id", T.INT64, [])],
        [value("row", T.FLOAT, [HIDDEN])],
        [numpy_helper.from_array(TABLE, "table")],
    )
    return save(path, graph)


def write_encoder(folder: Path, *, pooling: str = "mean") -> Path:
    """A sentence encoder: rows of a table, turned by their place in the mask's favour."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("Unsqueeze", ["attention_mask", "last"], ["wide"]),
            helper.make_node("Cast", ["wide"], ["seen"], to=T.FLOAT),
            # Padding is made to count, so that only masked pooling gives the right vector.
            helper.make_node("Sub", ["rows", "seen"], ["last_hidden_state"]),
        ],
        "encoder",
        [value("input_ids", T.INT64, ["b", "s"]), value("attention_mask", T.INT64, ["b", "s"])],
        [value("last_hidden_state", T.FLOAT, ["b", "s", HIDDEN])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
        ],
    )
    save(folder / "onnx" / "model.onnx", graph)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "vocab_size": len(WORDS),
        "max_position_embeddings": LONGEST,
    }
    (folder / "config.json").write_text(json.dumps(config))
    words = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({f"pooling_mode_{mode}_tokens": mode == pooling for mode in ("mean", "max")})
    )
    return folder

"""Writes GPT-2's decoder as an ONNX graph, which the model builder does not cover.

Learned positions in place of rotary ones, LayerNorm with a bias, one projection for query,
key and value, and a token table that is the vocabulary matrix as well, unless the config says
otherwise. Every layer has caches, as in the builder's graphs, so all that follows an export
(``engine.models.graph``, ``quantize``, ``verify``) is the same for both.

Names and layout of the weights are those of transformers' GPT2LMHeadModel: its "Conv1D" holds
[in, out], which is what MatMul takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.models.find import MASKS, inspect
from engine.models.graph import ATTENTION, CONTRIB, Decoder, UnsupportedGraph

ARCHITECTURE = "GPT2LMHeadModel"
OPSET = 20  # the first with Gelu
PREFIX = "transformer."  # which the first checkpoints do not have
HEAD = "lm_head.weight"

# The config's names of the activation functions: operator and attributes.
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}

Weights = Mapping[str, np.ndarray]


def decoder(folder: Path, config: Mapping[str, Any]) -> Decoder:
    """The fp32 graph of the checkpoint in ``folder``.

    Args:
        config: its ``config.json``.

    Raises:
        UnsupportedGraph: the config asks for what GPT-2 does not have, or a weight is missing
            or of another shape than the config says.
    """
    sizes = Sizes(config)
    graph = Writer(sizes, load_weights(folder)).write()
    return Decoder(
        model=ir.Model(graph, ir_version=10),
        layers=sizes.layers,
        kv_heads=sizes.heads,
        head_dim=sizes.head_dim,
        vocab_size=sizes.vocab,
        max_len=sizes.positions,
    )


def load_weights(folder: Path) -> dict[str, np.ndarray]:
    """Weights in float32 by their names without the prefix; masks kept as buffers stay behind."""
    from safetensors import safe_open

    found: dict[str, np.ndarray] = {}
    for path in inspect(folder).weights:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (the object is no mapping)
                if not name.endswith(MASKS):
                    found[name.removeprefix(PREFIX)] = file.get_tensor(name).float().numpy()
    return found


class Sizes:
    """What the config says of the graph; raises UnsupportedGraph."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        def positive(name: str, default: int) -> int:
            value = config.get(name, default)
            if type(value) is not int or value < 1:
                raise UnsupportedGraph(f"config.json: {name} is not a positive integer")
            return value

        self.layers = positive("n_layer", 12)
        self.heads = positive("n_head", 12)
        self.width = positive("n_embd", 768)
        self.positions = positive("n_positions", 1024)
        self.vocab = positive("vocab_size", 50257)
        self.inner = 4 * self.width if config.get("n_inner") is None else positive("n_inner", 1)
        self.head_dim, rest = divmod(self.width, self.heads)
        if rest:
            raise UnsupportedGraph(f"config.json: n_embd {self.width} has no {self.heads} heads")
        if config.get("add_cross_attention"):
            raise UnsupportedGraph("it attends to an encoder (add_cross_attention)")
        name = config.get("activation_function", "gelu_new")
        if name not in ACTIVATIONS:
            raise UnsupportedGraph(f"its activation function is {name}")
        self.activation = ACTIVATIONS[name]
        self.epsilon = float(config.get("layer_norm_epsilon", 1e-5))
        self.tied = bool(config.get("tie_word_embeddings", True))
        self._by_root = bool(config.get("scale_attn_weights", True))
        self._by_layer = bool(config.get("scale_attn_by_inverse_layer_idx", False))

    def attention_scale(self, layer: int) -> float:
        """What the products of queries and keys are multiplied by."""
        scale = self.head_dim**-0.5 if self._by_root else 1.0
        return scale / (layer + 1) if self._by_layer else scale


class Writer:
    """Puts the graph together, node by node."""

    def __init__(self, sizes: Sizes, weights: Weights) -> None:
        self._sizes = sizes
        self._weights = weights
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []

    def write(self) -> ir.Graph:
        """The whole decoder; inputs and outputs as the model builder names them."""
        sizes = self._sizes
        ids, positions = (
            ir.val(name, dtype=ir.DataType.INT64, shape=["batch_size", "sequence_length"])
            for name in ("input_ids", "position_ids")
        )
        inputs, outputs = [ids, positions], []
        table = self._weight("wte.weight", sizes.vocab, sizes.width)
        places = self._weight("wpe.weight", sizes.positions, sizes.width)
        tokens = self._node("Gather", [table, ids], "tokens", sizes.width)
        placed = self._node("Gather", [places, positions], "positions", sizes.width)
        stream = self._node("Add", [tokens, placed], "embedded", sizes.width)
        for layer in range(sizes.layers):
            past = [self._cache("past_key_values", layer, kind) for kind in ("key", "value")]
            stream, present = self._layer(stream, layer, past)
            inputs += past
            outputs += present
        normed = self._norm(stream, "ln_f")
        logits = self._node("MatMul", [normed, self._vocabulary(table)], "logits", sizes.vocab)
        return ir.Graph(
            inputs,
            [logits, *outputs],
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports={"": OPSET, CONTRIB: 1},
            name="gpt2",
        )

    def _layer(
        self, stream: ir.Value, layer: int, past: list[ir.Value]
    ) -> tuple[ir.Value, list[ir.Value]]:
        width, inner, p = self._sizes.width, self._sizes.inner, f"h.{layer}."
        normed = self._norm(stream, p + "ln_1")
        packed = self._affine(normed, p + "attn.c_attn", width, 3 * width)
        attended, present = self._attention(packed, layer, past)
        projected = self._affine(attended, p + "attn.c_proj", width, width)
        stream = self._node("Add", [stream, projected], p + "after_attention", width)
        normed = self._norm(stream, p + "ln_2")
        wide = self._affine(normed, p + "mlp.c_fc", width, inner)
        operator, attributes = self._sizes.activation
        active = self._node(operator, [wide], p + "mlp.act", inner, **attributes)
        narrow = self._affine(active, p + "mlp.c_proj", inner, width)
        return self._node("Add", [stream, narrow], p + "out", width), present

    def _attention(
        self, packed: ir.Value, layer: int, past: list[ir.Value]
    ) -> tuple[ir.Value, list[ir.Value]]:
        """``packed`` [B, S, 3 * width] holds queries, then keys, then values.

        The lengths (inputs 5 and 6) are connected by ``to_serving_form``.
        """
        sizes = self._sizes
        present = [self._cache("present", layer, kind) for kind in ("key", "value")]
        attended = self._value(f"h.{layer}.attended", sizes.width)
        node = ir.node(
            ATTENTION,
            [packed, None, None, *past, None, None],
            attributes={
                "num_heads": sizes.heads,
                "kv_num_heads": sizes.heads,
                "do_rotary": 0,
                "scale": sizes.attention_scale(layer),
            },
            domain=CONTRIB,
            outputs=[attended, *present],
        )
        self._nodes.append(node)
        return attended, present

    def _norm(self, source: ir.Value, name: str) -> ir.Value:
        width = self._sizes.width
        weights = [self._weight(f"{name}.{part}", width) for part in ("weight", "bias")]
        return self._node(
            "LayerNormalization",
            [source, *weights],
            name,
            width,
            axis=-1,
            epsilon=self._sizes.epsilon,
        )

    def _affine(self, source: ir.Value, name: str, depth: int, width: int) -> ir.Value:
        weight = self._weight(f"{name}.weight", depth, width)
        product = self._node("MatMul", [source, weight], f"{name}.product", width)
        return self._node("Add", [product, self._weight(f"{name}.bias", width)], name, width)

    def _vocabulary(self, table: ir.Value) -> ir.Value:
        """The vocabulary matrix [width, vocab]."""
        sizes = self._sizes
        if sizes.tied:
            assert table.const_value is not None
            array = table.const_value.numpy()
        else:
            array = self._array(HEAD, sizes.vocab, sizes.width)
        return self._initializer(HEAD, np.ascontiguousarray(array.T))

    def _array(self, name: str, *shape: int) -> np.ndarray:
        array = self._weights.get(name)
        if array is None:
            raise UnsupportedGraph(f"its safetensors files have no {name}")
        if array.shape != shape:
            raise UnsupportedGraph(
                f"{name} has the shape {list(array.shape)} and config.json says {list(shape)}"
            )
        return array

    def _weight(self, name: str, *shape: int) -> ir.Value:
        return self._initializer(name, self._array(name, *shape))

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._initializers.append(value)
        return value

    def _node(
        self,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        width: int,
        **attributes: Any,
    ) -> ir.Value:
        output = self._value(name, width)
        self._nodes.append(ir.node(operator, inputs, attributes=attributes, outputs=[output]))
        return output

    def _value(self, name: str, width: int) -> ir.Value:
        shape = ["batch_size", "sequence_length", width]
        return ir.val(name, dtype=ir.DataType.FLOAT, shape=shape)

    def _cache(self, side: str, layer: int, kind: str) -> ir.Value:
        shape = ["batch_size", self._sizes.heads, "max_len", self._sizes.head_dim]
        return ir.val(f"{side}.{layer}.{kind}", dtype=ir.DataType.FLOAT, shape=shape)

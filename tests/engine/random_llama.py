"""Small random Llama models in the prepared-model layout, built without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.onnx.prepared import MODEL_NAME, TOKENIZER_NAME, Manifest

MS = "com.microsoft"


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama. The default is as small as GroupQueryAttention likes."""

    vocab: int = 384
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    intermediate: int = 128
    max_len: int = 512
    rope_theta: float = 10_000.0
    rms_eps: float = 1e-5


Weights = dict[str, np.ndarray]
EOS_ID = 257


def random_weights(shape: Shape, seed: int = 0) -> Weights:
    """Weights under the names of transformers' LlamaForCausalLM, [out, in] as there."""
    rng = np.random.default_rng(seed)

    def draw(*size: int) -> np.ndarray:
        return (rng.standard_normal(size) * 0.2).astype(np.float32)

    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = {
        "model.embed_tokens.weight": draw(shape.vocab, shape.hidden),
        "model.norm.weight": np.ones(shape.hidden, np.float32),
        "lm_head.weight": draw(shape.vocab, shape.hidden),
    }
    for i in range(shape.layers):
        p = f"model.layers.{i}."
        weights |= {
            p + "input_layernorm.weight": np.ones(shape.hidden, np.float32),
            p + "post_attention_layernorm.weight": np.ones(shape.hidden, np.float32),
            p + "self_attn.q_proj.weight": draw(q, shape.hidden),
            p + "self_attn.k_proj.weight": draw(kv, shape.hidden),
            p + "self_attn.v_proj.weight": draw(kv, shape.hidden),
            p + "self_attn.o_proj.weight": draw(shape.hidden, q),
            p + "mlp.gate_proj.weight": draw(shape.intermediate, shape.hidden),
            p + "mlp.up_proj.weight": draw(shape.intermediate, shape.hidden),
            p + "mlp.down_proj.weight": draw(shape.hidden, shape.intermediate),
        }
    return weights


def write_prepared(folder: Path, shape: Shape, weights: Weights) -> Path:
    """Write a complete fp32 prepared-model folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(build_graph(shape, weights), str(folder / MODEL_NAME))
    byte_tokenizer(shape.vocab).save(str(folder / TOKENIZER_NAME))
    Manifest(
        num_layers=shape.layers,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab,
        max_model_len=shape.max_len,
        precision="fp32",
        eos_token_ids=(EOS_ID,),
        source="random",
        architecture="LlamaForCausalLM",
    ).write(folder)
    return folder


def byte_tokenizer(vocab: int) -> Tokenizer:
    """Ids 0-255 are bytes, 256-258 special tokens, the rest two letters each."""
    alphabet = bytes_in_byte_level_order()
    ids = {symbol: i for i, symbol in enumerate(alphabet)}
    extra = (a + b for a in alphabet[97:123] for b in alphabet[97:123])
    merges = []
    for i in range(259, vocab):
        pair = next(extra)
        ids[pair] = i
        merges.append((pair[0], pair[1]))
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    # The ids 256-258 are free in the vocabulary, so added tokens have to be placed there.
    for i, name in enumerate(special):
        ids[name] = 256 + i
    tokenizer.model = models.BPE(vocab=ids, merges=merges)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return tokenizer


def bytes_in_byte_level_order() -> list[str]:
    """The printable character that stands for each byte (GPT-2's table)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, spare = [], 256
    for byte in range(256):
        if byte in visible:
            table.append(chr(byte))
        else:
            table.append(chr(spare))
            spare += 1
    return table


def build_graph(shape: Shape, weights: Weights) -> Any:
    """The decoder as ONNX, with the inputs and outputs that prepared models have."""
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(op: str, inputs: list[str], output: str, domain: str = "", **attrs: Any) -> str:
        outputs = [output] if isinstance(output, str) else output
        nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attrs))
        return outputs[0]

    def linear(x: str, name: str, output: str) -> str:
        return node("MatMul", [x, constant(name, weights[name].T)], output)

    def norm(x: str, name: str, output: str) -> str:
        scale = constant(name, weights[name])
        return node(
            "SimplifiedLayerNormalization",
            [x, scale],
            output,
            axis=-1,
            epsilon=shape.rms_eps,
            stash_type=1,
        )

    half = shape.head_dim // 2
    inverse = shape.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    angles = np.arange(shape.max_len)[:, None] * inverse
    constant("cos", np.cos(angles).astype(np.float32))
    constant("sin", np.sin(angles).astype(np.float32))
    x = node(
        "Gather",
        [constant("embed", weights["model.embed_tokens.weight"]), "input_ids"],
        "embedded",
    )
    for i in range(shape.layers):
        p = f"model.layers.{i}."
        h = norm(x, p + "input_layernorm.weight", f"{i}.norm1")
        q, k, v = (linear(h, f"{p}self_attn.{c}_proj.weight", f"{i}.{c}") for c in "qkv")
        attended = node(
            "GroupQueryAttention",
            [
                *(q, k, v, f"past_key_values.{i}.key", f"past_key_values.{i}.value"),
                *("seqlens_k", "total_sequence_length", "cos", "sin"),
            ],
            [f"{i}.attended", f"present.{i}.key", f"present.{i}.value"],  # type: ignore[arg-type]
            domain=MS,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
            scale=shape.head_dim**-0.5,
        )
        o = linear(attended, p + "self_attn.o_proj.weight", f"{i}.o")
        x = node("Add", [x, o], f"{i}.residual1")
        h = norm(x, p + "post_attention_layernorm.weight", f"{i}.norm2")
        gate = linear(h, p + "mlp.gate_proj.weight", f"{i}.gate")
        up = linear(h, p + "mlp.up_proj.weight", f"{i}.up")
        silu = node("Mul", [gate, node("Sigmoid", [gate], f"{i}.sigmoid")], f"{i}.silu")
        down = linear(
            node("Mul", [silu, up], f"{i}.gated"), p + "mlp.down_proj.weight", f"{i}.down"
        )
        x = node("Add", [x, down], f"{i}.residual2")
    x = norm(x, "model.norm.weight", "final_norm")
    flat = node(
        "Reshape", [x, constant("flat_shape", np.array([-1, shape.hidden], np.int64))], "flat"
    )
    wanted = node("Gather", [flat, "logit_idx"], "wanted", axis=0)
    # Rewriting tools replace a product together with its output, which must not be the graph's.
    node("Identity", [linear(wanted, "lm_head.weight", "scores")], "logits")

    def value(name: str, kind: int, dims: list[int | str]) -> Any:
        return helper.make_tensor_value_info(name, kind, dims)

    kv_dims: list[int | str] = ["batch", shape.kv_heads, "max_len", shape.head_dim]
    kv = [f"{i}.{kind}" for i in range(shape.layers) for kind in ("key", "value")]
    graph = helper.make_graph(
        nodes,
        "llama",
        [
            value("input_ids", T.INT64, ["batch", "seq"]),
            value("seqlens_k", T.INT32, ["batch"]),
            value("total_sequence_length", T.INT32, []),
            value("logit_idx", T.INT64, ["n"]),
            *(value(f"past_key_values.{name}", T.FLOAT, kv_dims) for name in kv),
        ],
        [
            value("logits", T.FLOAT, ["n", shape.vocab]),
            *(value(f"present.{name}", T.FLOAT, kv_dims) for name in kv),
        ],
        constants,
        # Rewriting tools want to know the types in between.
        value_info=[
            helper.make_tensor_value_info(output, T.FLOAT, None)
            for made in nodes
            for output in made.output
            if output != "logits" and not output.startswith("present.")
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)

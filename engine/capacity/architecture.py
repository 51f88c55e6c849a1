"""A model's layers as far as memory and time depend on them, read from ``config.json``.

Which layers slide, hold a latent or hold a recurrent state follows transformers' configuration
classes: newer files list ``layer_types``, older ones say it by a rule of their family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.capacity import CapacityError

Kind = Literal["full", "sliding", "mla", "state"]
Config = Mapping[str, Any]

DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
# Families whose every layer slides when the config has a sliding_window.
_ALL_SLIDE = {"mistral", "mixtral", "phi3", "starcoder2", "phimoe"}
# Families that slide in all layers but each n-th: transformers' default of n.
_PATTERN = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
_NAMED: dict[str, Kind] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "linear_attention": "state",
    "mamba": "state",
}
_INDEXER_GROUP = 128  # values of DeepSeek's sparse indexer that share a 4-byte scale


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer keeps of a sequence.

    Attributes:
        kv_heads: heads with keys and values of their own; 1 for a latent.
        key_dim, value_dim: their widths; a latent counts as a key without a value.
        window: tokens that stay visible; None for all.
        extra_bytes: bytes per token beside the KV dtype's, such as a sparse indexer's.
        state_bytes: bytes per sequence that do not grow (recurrent layers), undivided.
    """

    kind: Kind
    kv_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    window: int | None = None
    extra_bytes: int = 0
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder-only model's shape.

    Attributes:
        name: first entry of ``architectures``, or the model type.
        dtype_bytes: bytes of a 16- or 32-bit value as vLLM serves it (float32 is served in
            16 bits unless DTYPE says otherwise).
        attention_width: query heads times the width that scores and values take together;
            a token costs 2 x this many operations per token that it looks back on.
    """

    name: str
    model_type: str
    layers: tuple[Layer, ...]
    hidden: int
    heads: int
    vocab: int
    intermediate: int
    max_model_len: int | None
    dtype_bytes: int
    attention_width: int
    config: Config

    @property
    def window(self) -> int | None:
        """The sliding layers' window."""
        return next((layer.window for layer in self.layers if layer.window), None)


def text_config(config: Config) -> Config:
    """The language model's part of a config."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def read_architecture(config: Config) -> Architecture:
    """Read the layers. Raises CapacityError naming what the config lacks or what is unknown."""
    text = text_config(config)
    model_type = str(text.get("model_type") or config.get("model_type") or "unnamed")
    names = config.get("architectures") or [model_type]
    if config.get("is_encoder_decoder"):
        raise CapacityError(f"{names[0]} has an encoder and a decoder: only decoders are planned")
    count = _number(text, "num_hidden_layers", "n_layer")
    heads = _number(text, "num_attention_heads", "n_head")
    hidden = _number(text, "hidden_size", "n_embd")
    dtype = str(_first(config, text, "dtype", "torch_dtype") or "bfloat16")
    size = min(2, DTYPE_BYTES.get(dtype.removeprefix("torch."), 2))
    kinds = _kinds(text, model_type, count)
    layers = tuple(_layer(kind, text, heads, hidden, size) for kind in kinds)
    if text.get("kv_lora_rank"):
        width = _number(text, "qk_nope_head_dim") + _number(text, "qk_rope_head_dim")
        attention = heads * (width + _number(text, "v_head_dim"))
    else:
        attention = 2 * heads * _head_dim(text, heads, hidden)
    longest = text.get("max_position_embeddings") or text.get("n_positions")
    return Architecture(
        str(names[0]),
        model_type,
        layers,
        hidden,
        heads,
        _number(text, "vocab_size"),
        int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden),
        int(longest) if isinstance(longest, int) else None,
        size,
        attention,
        config,
    )


def _kinds(text: Config, model_type: str, count: int) -> list[str]:
    """transformers' name of each layer's type."""
    named = text.get("layer_types")
    if isinstance(named, list) and len(named) == count:
        return [str(name) for name in named]
    if interval := text.get("full_attention_interval"):
        return _each_nth(count, int(interval), "linear_attention")
    if text.get("kv_lora_rank"):
        return ["full_attention"] * count
    if text.get("attention_chunk_size") and model_type.startswith("llama4"):
        return _each_nth(count, 4, "chunked_attention")
    if not text.get("sliding_window"):
        return ["full_attention"] * count
    if model_type in _PATTERN:
        every = text.get("sliding_window_pattern") or _PATTERN[model_type]
        return _each_nth(count, int(every), "sliding_attention")
    if model_type in _ALL_SLIDE:
        return ["sliding_attention"] * count
    if text.get("use_sliding_window"):
        first = int(text.get("max_window_layers") or 0)
        return ["full_attention" if i < first else "sliding_attention" for i in range(count)]
    return ["full_attention"] * count


def _each_nth(count: int, every: int, others: str) -> list[str]:
    return ["full_attention" if (i + 1) % every == 0 else others for i in range(count)]


def _layer(name: str, text: Config, heads: int, hidden: int, size: int) -> Layer:
    kind = _NAMED.get(name)
    if kind is None:
        raise CapacityError(
            f"layers of type {name} are not covered: known are {', '.join(sorted(_NAMED))}"
        )
    if kind == "state":
        return Layer("state", state_bytes=_state_bytes(name, text, size))
    if rank := text.get("kv_lora_rank"):
        return Layer(
            "mla",
            1,
            int(rank) + _number(text, "qk_rope_head_dim"),
            extra_bytes=_indexer_bytes(text),
        )
    head = _head_dim(text, heads, hidden)
    kv_heads = int(text.get("num_key_value_heads") or (1 if text.get("multi_query") else heads))
    window = None
    if kind == "sliding":
        chunk = text.get("attention_chunk_size") if name == "chunked_attention" else None
        window = int(chunk or text.get("sliding_window") or 0) or None
        if window is None:
            kind = "full"
    return Layer(kind, kv_heads, head, int(text.get("v_head_dim") or head), window)


def _head_dim(text: Config, heads: int, hidden: int) -> int:
    return int(text.get("head_dim") or hidden // heads)


def _indexer_bytes(text: Config) -> int:
    """DeepSeek's sparse attention keeps an fp8 key and its scales per token and layer."""
    width = int(text.get("index_head_dim") or 0) if text.get("index_topk") else 0
    return width + 4 * (width // _INDEXER_GROUP)


def _state_bytes(name: str, text: Config, size: int) -> int:
    """A recurrent layer's convolution and state, as vLLM's MambaStateShapeCalculator has them."""
    state = DTYPE_BYTES.get(str(text.get("mamba_ssm_dtype") or ""), size)
    if name == "linear_attention":
        keys = _number(text, "linear_num_key_heads") * _number(text, "linear_key_head_dim")
        value_heads = _number(text, "linear_num_value_heads")
        values = value_heads * _number(text, "linear_value_head_dim")
        convolution = (_number(text, "linear_conv_kernel_dim") - 1) * (2 * keys + values)
        return convolution * size + values * _number(text, "linear_key_head_dim") * state
    inner = _number(text, "mamba_n_heads") * _number(text, "mamba_d_head")
    depth = _number(text, "mamba_d_state")
    width = inner + 2 * _number(text, "mamba_n_groups") * depth
    return (_number(text, "mamba_d_conv") - 1) * width * size + inner * depth * state


def _first(config: Config, text: Config, *names: str) -> Any:
    return next((part[name] for part in (config, text) for name in names if part.get(name)), None)


def _number(text: Config, *names: str) -> int:
    for name in names:
        value = text.get(name)
        if isinstance(value, int) and value > 0:
            return value
    raise CapacityError(
        f"config.json has no usable {names[0]}: is it the config of a decoder-only language model?"
    )

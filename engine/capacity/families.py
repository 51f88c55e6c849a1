"""The weights that a config implies, family by family, for models without their files.

Each family's shapes are those of its transformers class; a test builds every one of them on
torch's meta device and compares the number of parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.capacity import CapacityError
from engine.capacity.architecture import Config, text_config
from engine.capacity.weights import Tensor, tensor


@dataclass(frozen=True, slots=True)
class Family:
    """How a family's layers differ from Llama's.

    Attributes:
        norms: norm weights of one layer.
        qkv_bias, out_bias, mlp_bias, norm_bias, head_bias: whether these have biases; for
            the first and third the config may say otherwise.
        qk_norm: whether queries and keys are normed per head.
        gated: whether the MLP has a gate beside its up projection.
        tied: tie_word_embeddings where the config leaves it out.
        positions: learned position embeddings.
        moe: whether it is a mixture of experts.
    """

    norms: int = 2
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    head_bias: bool = False
    qk_norm: bool = False
    gated: bool = True
    tied: bool = False
    positions: bool = False
    moe: bool = False


_PHI = Family(
    norms=1,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    norm_bias=True,
    head_bias=True,
    gated=False,
)
_GPT2 = Family(
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    norm_bias=True,
    gated=False,
    tied=True,
    positions=True,
)
FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True),
    "gemma": Family(tied=True),
    "gemma2": Family(norms=4, tied=True),
    "gemma3_text": Family(norms=4, qk_norm=True, tied=True),
    "phi": _PHI,
    "phi3": Family(),
    "granite": Family(),
    "gpt2": _GPT2,
    "mixtral": Family(moe=True),
    "qwen3_moe": Family(qk_norm=True, moe=True),
    "deepseek_v2": Family(moe=True),
    "deepseek_v3": Family(moe=True),
}


def is_tied(config: Config) -> bool:
    """Whether the token table is the head too."""
    text = text_config(config)
    family = FAMILIES.get(str(text.get("model_type")), Family())
    return bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", family.tied)))


def experts_of(config: Config) -> tuple[int, int]:
    """Routed experts of a mixture's layers and how many each token takes; 1, 1 if dense."""
    text = text_config(config)
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if count := text.get(name):
            return int(count), int(text.get("num_experts_per_tok") or 1)
    return 1, 1


def from_config(config: Config) -> tuple[Tensor, ...]:
    """Every weight of the language model. Raises CapacityError for a family not covered."""
    text = text_config(config)
    model_type = str(text.get("model_type"))
    if model_type not in FAMILIES:
        raise CapacityError(
            f"the weights of a {model_type} model cannot be told from its config alone: give a "
            "folder with its safetensors files (only their headers are read), or a model of "
            f"{', '.join(FAMILIES)}"
        )
    try:
        return tuple(_weights(text, FAMILIES[model_type], model_type, is_tied(config)))
    except (KeyError, TypeError) as error:
        raise CapacityError(f"config.json of this {model_type} model lacks {error}") from error


def _weights(text: Config, family: Family, model_type: str, tied: bool) -> Iterator[Tensor]:
    hidden = int(text.get("hidden_size") or text["n_embd"])
    layers = int(text.get("num_hidden_layers") or text["n_layer"])
    vocab = int(text["vocab_size"])
    yield tensor("embed_tokens.weight", (vocab, hidden))
    if family.positions:
        yield tensor("wpe.weight", (int(text.get("n_positions") or 1024), hidden))
    yield from _norm("norm", hidden, family)
    if not tied:
        yield tensor("lm_head.weight", (vocab, hidden))
    if family.head_bias:
        yield tensor("lm_head.bias", (vocab,))
    for index in range(layers):
        here = f"layers.{index}"
        for norm in range(family.norms):
            yield from _norm(f"{here}.norm{norm}", hidden, family)
        if text.get("kv_lora_rank"):
            yield from _latent_attention(here, text, hidden)
        else:
            yield from _attention(here, text, hidden, family, model_type)
        yield from _mlp(here, text, hidden, family, index)


def _norm(name: str, width: int, family: Family) -> Iterator[Tensor]:
    yield tensor(f"{name}.weight", (width,))
    if family.norm_bias:
        yield tensor(f"{name}.bias", (width,))


def _linear(name: str, out: int, width: int, bias: bool = False) -> Iterator[Tensor]:
    yield tensor(f"{name}.weight", (out, width))
    if bias:
        yield tensor(f"{name}.bias", (out,))


def _attention(
    here: str, text: Config, hidden: int, family: Family, model_type: str
) -> Iterator[Tensor]:
    heads = int(text.get("num_attention_heads") or text["n_head"])
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head = int(text.get("head_dim") or hidden // heads)
    bias = family.qkv_bias or bool(text.get("attention_bias"))
    # Qwen2 has them on queries, keys and values only.
    out_bias = family.out_bias or (bool(text.get("attention_bias")) and model_type != "qwen2")
    yield from _linear(f"{here}.q_proj", heads * head, hidden, bias)
    yield from _linear(f"{here}.k_proj", kv_heads * head, hidden, bias)
    yield from _linear(f"{here}.v_proj", kv_heads * head, hidden, bias)
    yield from _linear(f"{here}.o_proj", hidden, heads * head, out_bias)
    if family.qk_norm:
        yield tensor(f"{here}.q_norm.weight", (head,))
        yield tensor(f"{here}.k_norm.weight", (head,))


def _latent_attention(here: str, text: Config, hidden: int) -> Iterator[Tensor]:
    heads, rank = int(text["num_attention_heads"]), int(text["kv_lora_rank"])
    rope, plain = int(text["qk_rope_head_dim"]), int(text["qk_nope_head_dim"])
    value = int(text["v_head_dim"])
    if low := text.get("q_lora_rank"):
        yield from _linear(f"{here}.q_a_proj", int(low), hidden)
        yield tensor(f"{here}.q_a_norm.weight", (int(low),))
        yield from _linear(f"{here}.q_b_proj", heads * (plain + rope), int(low))
    else:
        yield from _linear(f"{here}.q_proj", heads * (plain + rope), hidden)
    yield from _linear(f"{here}.kv_a_proj", rank + rope, hidden)
    yield tensor(f"{here}.kv_a_norm.weight", (rank,))
    yield from _linear(f"{here}.kv_b_proj", heads * (plain + value), rank)
    yield from _linear(f"{here}.o_proj", hidden, heads * value)


def _mlp(here: str, text: Config, hidden: int, family: Family, index: int) -> Iterator[Tensor]:
    wide = int(text.get("intermediate_size") or text.get("n_inner") or 4 * hidden)
    dense_first = int(text.get("first_k_dense_replace") or 0)
    only_dense = index in (text.get("mlp_only_layers") or ()) or index < dense_first
    if not family.moe or only_dense:
        bias = family.mlp_bias or bool(text.get("mlp_bias"))
        yield from _feed_forward(f"{here}.mlp", hidden, wide, family.gated, bias)
        return
    experts, _ = experts_of(text)
    narrow = int(text.get("moe_intermediate_size") or wide)
    yield tensor(f"{here}.gate.weight", (experts, hidden))
    if text.get("topk_method") == "noaux_tc" or text.get("model_type") == "deepseek_v3":
        yield tensor(f"{here}.gate.correction", (experts,))
    for expert in range(experts):
        yield from _feed_forward(f"{here}.experts.{expert}", hidden, narrow, True, False)
    if shared := text.get("n_shared_experts"):
        yield from _feed_forward(f"{here}.shared", hidden, narrow * int(shared), True, False)


def _feed_forward(here: str, hidden: int, wide: int, gated: bool, bias: bool) -> Iterator[Tensor]:
    yield from _linear(f"{here}.up_proj", wide, hidden, bias)
    if gated:
        yield from _linear(f"{here}.gate_proj", wide, hidden, bias)
    yield from _linear(f"{here}.down_proj", hidden, wide, bias)

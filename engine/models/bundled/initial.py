"""Starting weights in which two layers already copy.

Names, numbers, JSON values and tool arguments are all copied from the prompt, by the pair of
attention heads known as an induction head: one looks at the previous token, one looks for the
place where the current token came before. Small models find that pair only after many millions
of tokens. Here it is laid out at the start (in the spirit of mimetic initialisation, Trockman
and Kolter, 2023), and training refines it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.models.bundled.network import Llama, Shape

EMBEDDING_SCALE = 0.05
# Coordinate 0 of every embedding is this constant. It shifts all logits alike, so it says
# nothing about tokens, but it gives the bias-free projections a bias.
CONSTANT = 0.2
_FAST_PAIRS = 8  # rotary pairs that tell neighbouring positions apart
_SLOW_FROM = 16  # rotary pairs from here on hardly turn within a conversation


def initialise(model: Llama) -> None:
    """Fills all weights. Layers outside the two heads start by adding nothing, because a random
    output would drown the small embeddings."""
    with torch.no_grad():
        _initialise(model, model.shape)


def _initialise(model: Llama, shape: Shape) -> None:
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()
        elif weight.ndim == 2:
            scale = EMBEDDING_SCALE if "embed" in name else weight.shape[1] ** -0.5
            weight.normal_(std=scale)
    model.model.embed_tokens.weight[:, 0] = CONSTANT
    size, half = shape.head_size, shape.head_size // 2
    slow = [*range(_SLOW_FROM, half), *range(half + _SLOW_FROM, size)]
    code = _orthogonal(len(slow), shape.hidden)
    target = _orthogonal(len(slow), shape.hidden)

    previous = model.model.layers[0].self_attn
    _look_back(previous, shape)
    previous.v_proj.weight[:size] = 0
    previous.v_proj.weight[: len(slow)] = code
    previous.o_proj.weight[:, : len(slow)] = 0.1 * target.T

    matching = model.model.layers[1].self_attn
    for head in range(shape.heads // shape.kv_heads):
        matching.q_proj.weight[head * size : (head + 1) * size] = 0
        matching.q_proj.weight[torch.tensor(slow) + head * size] = 1.4 * code
    matching.k_proj.weight[:size] = 0
    matching.k_proj.weight[slow] = 1.4 * target
    content = _orthogonal(size, shape.hidden)
    matching.v_proj.weight[:size] = content
    matching.o_proj.weight[:, :size] = 0.15 * content.T


def _orthogonal(rows: int, columns: int) -> Tensor:
    """Orthonormal rows that ignore the constant coordinate."""
    matrix = torch.zeros(rows, columns)
    torch.nn.init.orthogonal_(matrix[:, 1:])
    return matrix


def _look_back(attention: torch.nn.Module, shape: Shape) -> None:
    """Makes the first two heads attend one and two tokens back, whatever the tokens are."""
    size, half = shape.head_size, shape.head_size // 2
    pairs = torch.arange(_FAST_PAIRS)
    turn = shape.rope_theta ** (-pairs / half)
    strength = 1.4
    attention.k_proj.weight[:size] = 0
    attention.k_proj.weight[pairs, 0] = strength * turn.cos()
    attention.k_proj.weight[pairs + half, 0] = strength * turn.sin()
    for head in range(shape.heads // shape.kv_heads):
        start = head * size
        attention.q_proj.weight[start : start + size] = 0
        attention.q_proj.weight[start + pairs, 0] = strength * (head * turn).cos()
        attention.q_proj.weight[start + half + pairs, 0] = -strength * (head * turn).sin()

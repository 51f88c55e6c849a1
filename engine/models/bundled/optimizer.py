"""Muon for the matrices, AdamW for the embedding and the norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.models.bundled import workers
from engine.models.bundled.network import Llama

MATRIX_RATE, EMBEDDING_RATE, NORM_RATE = 0.015, 0.004, 0.004
MOMENTUM, WEIGHT_DECAY = 0.95, 0.02
# Quintic Newton-Schulz coefficients (Jordan et al., "Muon", 2024): singular values to about 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalised(matrices: Tensor, rounds: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to [count, rows, columns], approximately."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x if wide else x.transpose(1, 2)


class Muon:
    """One optimizer over all parameters of the model.

    Matrices of one size are updated together, because batched products use the cores better.
    """

    def __init__(self, model: Llama) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.groups: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        for name, parameter in named:
            if parameter.ndim == 2 and "embed" not in name:
                self.groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.momenta = {shape: torch.zeros(len(group), *shape, device=group[0].device)
                        for shape, group in self.groups.items()}  # fmt: skip
        embedding = [p for name, p in named if "embed" in name]
        norms = [p for _, p in named if p.ndim == 1]
        self.rates = (EMBEDDING_RATE, NORM_RATE)
        self.adam = torch.optim.AdamW(
            [{"params": embedding}, {"params": norms}], betas=(0.9, 0.95), weight_decay=0.0
        )
        self.parameters = [p for _, p in named]

    def zero_grad(self) -> None:
        """Drops the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """What a later run needs to go on."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`."""
        self.momenta = state["momenta"]
        self.adam.load_state_dict(state["adam"])

    def step(self, factor: float) -> None:
        """One update, with all learning rates scaled by `factor`."""
        with torch.no_grad():
            self._step(factor)

    def _step(self, factor: float) -> None:
        for rate, group in zip(self.rates, self.adam.param_groups, strict=True):
            group["lr"] = rate * factor
        self.adam.step()
        rate = MATRIX_RATE * factor
        for shape, parameters in self.groups.items():
            gradient = torch.stack([p.grad for p in parameters if p.grad is not None])
            momentum = self.momenta[shape]
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = self._spread(gradient.lerp_(momentum, MOMENTUM))
            scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, change in zip(parameters, update, strict=True):
                parameter.mul_(1 - rate * WEIGHT_DECAY).sub_(change, alpha=scale)

    def _spread(self, matrices: Tensor) -> Tensor:
        """`orthogonalised`, with the matrices divided among the processes."""
        parts = matrices.tensor_split(workers.count())
        own = parts[workers.rank()]
        own.copy_(orthogonalised(own))
        for owner, part in enumerate(parts):
            workers.share(part, owner)
        return matrices

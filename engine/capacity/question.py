"""What a plan is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from engine.capacity import CapacityError
from engine.capacity.decide import Target
from engine.capacity.model import Model
from engine.capacity.prices import PriceList
from engine.capacity.traffic import Traffic

LEAST_MODEL_LEN = 16  # what MAX_MODEL_LEN takes at least


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        max_model_len: None for the longest sequence that the traffic can have.
        tensor_parallel: 0 for the fewest GPUs on which it fits.
        requests, seed: of the simulation.
    """

    model: Model
    traffic: Traffic
    target: Target
    prices: PriceList
    region: str | None = None
    max_model_len: int | None = None
    tensor_parallel: int = 0
    requests: int = 2000
    seed: int = 1
    today: date = field(default_factory=date.today)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence to plan for. Raises CapacityError if the model's
        context is shorter."""
        wanted = self.max_model_len or self.traffic.longest
        limit = self.model.architecture.max_model_len
        if limit is not None and wanted > limit:
            raise CapacityError(
                f"sequences of up to {wanted} tokens are asked for and {self.model.source} takes "
                f"{limit}: give shorter --input and --output, or --max-model-len {limit}, beyond "
                "which requests are refused"
            )
        return max(wanted, LEAST_MODEL_LEN)

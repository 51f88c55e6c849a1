"""One request on its way through admission."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gateway.control.admission.fair import Flow

BLOCK_TOKENS = 16
# A token that is generated costs a step of the engine, one that is read a part of a step; the
# paper on VTC (see fair.py) counts them 1 to 2, as the prices of hosted models do.
OUTPUT_COST = 2.0

State = Literal["new", "waiting", "held", "over"]


@dataclass(slots=True, eq=False)
class Ticket:
    """What a request needs of an engine, and where it stands.

    Attributes:
        tenant: whose it is (``Principal.owner``): requests of one tenant stay in order.
        rank: index of its class in ``rights.CLASSES``.
        weight: of its tenant.
        slots: sequences that it runs at a time.
        blocks: of KV memory that it is expected to fill, BLOCK_TOKENS tokens each.
        cost: expected tokens, weighted.
        arrived: seconds on the controller's clock; so are ``limit`` and ``admitted``.
        limit: after this it must not be admitted any more. own_limit: it said so itself.
        held_slots, held_blocks: what it is accounted with while it runs.
    """

    tenant: str
    rank: int
    weight: float
    slots: int
    blocks: int
    cost: float
    arrived: float
    limit: float = math.inf
    own_limit: bool = False
    state: State = "new"
    admitted: float = 0.0
    held_slots: int = 0
    held_blocks: int = 0
    flow: Flow | None = None
    future: asyncio.Future[None] | None = None
    timer: asyncio.TimerHandle | None = None


def blocks_for(tokens: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return -(-tokens // BLOCK_TOKENS)


def cost_of(prompt_tokens: int, output_tokens: float) -> float:
    """Tokens weighted by what they cost an engine."""
    return prompt_tokens + OUTPUT_COST * output_tokens

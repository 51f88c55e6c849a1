"""What is known of a model's second attempts at answers that are late to begin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.routing.budget import RetryBudget
from gateway.routing.config import Hedge
from gateway.routing.policies import load_of

if TYPE_CHECKING:
    from gateway.routing.upstream import Upstream


class Hedging:
    """Of one model. Owned by the event loop.

    Attributes:
        budget: keeps them a share of its requests.
        outcomes: ``won``: the second server began first; ``lost``: the first one did;
            ``failed``: neither began; ``skipped``: nobody was asked, for want of budget or of a
            server with room.
    """

    def __init__(self, rules: Hedge) -> None:
        self.rules = rules
        self.budget = RetryBudget(rules)
        self.outcomes: dict[str, int] = {"won": 0, "lost": 0, "failed": 0, "skipped": 0}

    def choose(self, others: Iterable[Upstream]) -> Upstream | None:
        """The least loaded of these servers, counted against the budget; None to ask nobody."""
        free = [other for other in others if not other.full]
        if not free or not self.budget.take():
            self.outcomes["skipped"] += 1
            return None
        return min(free, key=load_of)

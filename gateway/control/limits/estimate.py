"""What a request will probably use, before it runs."""

from __future__ import annotations

from typing import Protocol

from gateway.control.gate import Used, Work
from gateway.control.limits.windows import NANO, Unit

# Of a model that has not answered anything yet.
FIRST_GUESS_TOKENS = 256
# The weight of the newest answer in the moving average.
ALPHA = 1 / 16
MOST_MODELS = 1000


class Prices(Protocol):
    """What tokens cost; see ``gateway.control.prices.PriceTable``."""

    def usd(
        self, model: str, prompt_tokens: int, cached_tokens: int, completion_tokens: int
    ) -> float:
        """US dollars."""


class Estimator:
    """Reserves by ``max_tokens`` where the caller set it, otherwise by how long the answers of
    this model have been: an exponentially weighted moving average, ``m += (x - m) / 16``."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self._typical: dict[str, float] = {}

    def priced(self, prices: Prices) -> Estimator:
        """The same with other prices; what is learnt from answers is shared."""
        other = Estimator(prices)
        other._typical = self._typical
        return other

    def typical(self, model: str) -> int:
        """Output tokens of a usual choice."""
        return round(self._typical.get(model, FIRST_GUESS_TOKENS))

    def observe(self, model: str, tokens: float) -> None:
        """Learn from the length of a finished choice."""
        mean = self._typical.get(model)
        if mean is not None:
            self._typical[model] = mean + ALPHA * (tokens - mean)
        elif len(self._typical) < MOST_MODELS:
            self._typical[model] = tokens

    def before(self, work: Work, unit: Unit, limit: int) -> int:
        """What to reserve of a limit.

        A guess is never a reason to refuse for good, so it stays within the limit; what the
        caller asked for does not.
        """
        if unit in ("requests", "concurrent"):
            return 1
        most = work.max_tokens
        output = most if work.is_capped else min(most, self.typical(work.model))
        cost = self._cost(work, unit, Used(work.prompt_tokens, 0, output * work.choices))
        if work.is_capped or cost <= limit:
            return cost
        return max(limit, self._cost(work, unit, Used(work.prompt_tokens, 0, 0)))

    def after(self, work: Work, unit: Unit) -> int:
        """What was used of tokens or money."""
        return self._cost(work, unit, work.used)

    def _cost(self, work: Work, unit: Unit, used: Used) -> int:
        if unit == "tokens":
            return used.prompt_tokens + used.completion_tokens
        model = work.route.model_id
        prompt, cached, output = used.prompt_tokens, used.cached_tokens, used.completion_tokens
        return round(self.prices.usd(model, prompt, cached, output) * NANO)

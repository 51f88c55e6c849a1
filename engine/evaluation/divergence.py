"""What logits say of the tokens that came, and how far two models' predictions are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 32  # bounds the float64 copies of a large vocabulary's logits


@dataclass(slots=True)
class Totals:
    """Sums over scored tokens, of one variant; in nats.

    Attributes:
        nll: negative log-likelihood of the tokens that came.
        kl: Kullback-Leibler divergence of the variant's prediction from the reference's.
        agreed: tokens for which both hold the same one likeliest.
        added, added_squared: what the variant's negative log-likelihood is above the
            reference's, per token, and its square.
    """

    tokens: int = 0
    nll: float = 0.0
    kl: float = 0.0
    agreed: int = 0
    added: float = 0.0
    added_squared: float = 0.0

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean negative log-likelihood."""
        return math.exp(self.nll / self.tokens)

    @property
    def mean_kl(self) -> float:
        """Nats per token."""
        return self.kl / self.tokens

    @property
    def agreement(self) -> float:
        """Share of tokens, 0 to 1."""
        return self.agreed / self.tokens

    @property
    def added_nll(self) -> float:
        """Nats per token above the reference."""
        return self.added / self.tokens

    @property
    def added_nll_error(self) -> float:
        """Standard error of ``added_nll``, with tokens taken as independent."""
        if self.tokens < 2:
            return math.inf
        variance = max(0.0, self.added_squared / self.tokens - self.added_nll**2)
        return math.sqrt(variance / (self.tokens - 1))


def add(totals: Totals, logits: Logits, came: Ids, reference: Logits | None) -> None:
    """Count rows of logits [tokens, vocabulary] against the tokens that came after them.

    Args:
        reference: the unquantised model's logits for the same rows; None where there is none.
    """
    for start in range(0, len(came), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        own = log_softmax(logits[rows])
        picked = np.arange(len(own)), came[rows]
        nll = -own[picked]
        totals.tokens += len(own)
        totals.nll += float(nll.sum())
        if reference is None:
            continue
        theirs = log_softmax(reference[rows])
        added = nll + theirs[picked]
        totals.kl += float((np.exp(theirs) * (theirs - own)).sum())
        totals.agreed += int((own.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        totals.added += float(added.sum())
        totals.added_squared += float((added * added).sum())


def log_softmax(logits: Logits) -> Doubles:
    """Natural logarithms of the probabilities, per row, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide

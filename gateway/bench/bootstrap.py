"""How far a difference of two runs may be chance: a bootstrap over rounds or stretches of time.

Requests that run together share their fate (a queue, a slow minute), so not requests are drawn but
whole clusters of them: rounds where two servers took turns, else stretches of the run. Intervals
are percentile intervals, widened for small numbers of clusters (T. Hesterberg, "What Teachers
Should Know About the Bootstrap", 2015, section 5.3, "expanded percentile interval").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

REPLICATES = 2000
CONFIDENCE = 0.95
MOST_GROUPS = 1000

Array = Any  # numpy's generic arrays say no more to mypy than this
Statistic = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of one run, each in a cluster.

    Attributes:
        sums, counts: of each cluster, shape (clusters,).
        grouped: how many values of each cluster fall into each group of neighbours in order of
            size, shape (clusters, groups). highest: of each group, shape (groups,).
    """

    sums: Array
    counts: Array
    grouped: Array
    highest: Array

    @classmethod
    def of(cls, per_cluster: Sequence[Sequence[float]]) -> Sample:
        """From the values of each cluster; they are exact up to MOST_GROUPS values, and else to
        that share of them."""
        clusters = len(per_cluster)
        values = np.concatenate([np.asarray(part, dtype=float) for part in per_cluster])
        owners = np.repeat(np.arange(clusters), [len(part) for part in per_cluster])
        order = np.argsort(values, kind="stable")
        groups = min(MOST_GROUPS, len(values))
        group_of = np.arange(len(values)) * groups // max(1, len(values))
        cells = np.bincount(owners[order] * groups + group_of, minlength=clusters * groups)
        last = np.searchsorted(group_of, np.arange(groups), side="right") - 1
        return cls(
            np.bincount(owners, values, clusters),
            np.bincount(owners, minlength=clusters),
            cells.reshape(clusters, groups).astype(float),
            values[order][last],
        )

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    @property
    def clusters(self) -> int:
        """How many clusters they are in."""
        return len(self.counts)

    def mean(self, weights: Array) -> Array:
        """With each cluster as often as ``weights`` says: shape (replicates, clusters), giving
        (replicates,); not a number where nothing was drawn."""
        with np.errstate(invalid="ignore"):
            return (weights @ self.sums) / (weights @ self.counts)

    def percentile(self, weights: Array, percent: float) -> Array:
        """The smallest value that ``percent`` of the weight does not exceed; shapes as above."""
        so_far = np.cumsum(weights @ self.grouped, axis=1)
        total = so_far[:, -1:]
        at = (so_far < total * percent / 100 - 1e-9).sum(axis=1)
        return np.where(
            total[:, 0] > 0, self.highest[np.minimum(at, len(self.highest) - 1)], np.nan
        )


def interval(
    a: Statistic, b: Statistic, clusters_a: int, clusters_b: int, *, paired: bool, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of ``b - a``; None where fewer than two clusters leave it open.

    Args:
        a, b: a statistic for weights of the clusters: (replicates, clusters) to (replicates,).
        paired: cluster i of both ran side by side, so that both are drawn together.
    """
    if min(clusters_a, clusters_b) < 2 or (paired and clusters_a != clusters_b):
        return None
    rng = np.random.default_rng(seed)
    weights_a = _drawn(rng, clusters_a)
    weights_b = weights_a if paired else _drawn(rng, clusters_b)
    differences = b(weights_b) - a(weights_a)
    differences = differences[np.isfinite(differences)]
    if len(differences) < REPLICATES / 2:
        return None
    tail = expanded_tail(min(clusters_a, clusters_b))
    low, high = np.percentile(differences, [tail * 100, (1 - tail) * 100])
    return float(low), float(high)


def expanded_tail(clusters: int) -> float:
    """The share of replicates beyond each end of an interval from ``clusters`` clusters."""
    quantile = student(1 - (1 - CONFIDENCE) / 2, clusters - 1)
    return NormalDist().cdf(-math.sqrt(clusters / (clusters - 1)) * quantile)


def student(probability: float, freedom: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else the expansion of
    Abramowitz and Stegun, 26.7.5, within 1 % from 3 degrees up."""
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / float(freedom) ** power for power, term in enumerate(terms))


def _drawn(rng: Any, clusters: int) -> Array:
    """How often each cluster is drawn: shape (REPLICATES, clusters)."""
    return rng.multinomial(clusters, [1 / clusters] * clusters, size=REPLICATES).astype(float)

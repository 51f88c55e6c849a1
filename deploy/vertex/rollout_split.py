"""Traffic splits of a rollout, and the record of it that the endpoint's labels keep.

The record is written in the one request that moves the first traffic, so that no crash leaves
traffic moved and the split of before forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "back", "done"]
_PHASES: dict[str, Phase] = {"forward": "forward", "back": "back", "done": "done"}
_NEW, _PHASE, _BEFORE = "rollout-new", "rollout-phase", "rollout-before-"


@dataclass(frozen=True, slots=True)
class Record:
    """A rollout that has been begun.

    Attributes:
        new: id of the deployed model that takes over.
        before: percent by id of deployed model, as it was.
        phase: forward while it goes on, back while it is taken back, done when the old version
            has been kept.
    """

    new: str
    before: dict[str, int]
    phase: Phase = "forward"

    def labels(self) -> dict[str, str]:
        """As labels of the endpoint."""
        shares = {f"{_BEFORE}{key}": str(share) for key, share in self.before.items()}
        return {_NEW: self.new, _PHASE: self.phase, **shares}


def read_record(labels: Mapping[str, str]) -> Record | None:
    """The record in an endpoint's labels, or None."""
    new, phase = labels.get(_NEW), _PHASES.get(labels.get(_PHASE, ""))
    if new is None or phase is None:
        return None
    before = {
        key.removeprefix(_BEFORE): int(share)
        for key, share in labels.items()
        if key.startswith(_BEFORE) and share.isdigit()
    }
    return Record(new, before, phase)


def without_record(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of others."""
    ours = (_NEW, _PHASE)
    return {k: v for k, v in labels.items() if k not in ours and not k.startswith(_BEFORE)}


def deployment_of(version: str) -> str:
    """The deployment's name in a version, which is ``NAME-HASH``."""
    return version.rpartition("-")[0]


def split_at(before: Mapping[str, int], old: frozenset[str], new: str, step: int) -> dict[str, int]:
    """The split with ``step`` percent of a deployment's traffic on its new version.

    Args:
        before: percent by id, which sum to 100.
        old: ids of the deployment's older versions.
        step: percent, from 1 to 100; another deployment's share stays as it was.
    """
    own = {key: share for key, share in before.items() if key in old or key == new}
    total = sum(own.values())
    taken = share_at(total, step)
    found = {key: share for key, share in before.items() if key not in own}
    left = total - taken
    older = {key: share for key, share in own.items() if key != new}
    weight = sum(older.values())
    for position, (key, share) in enumerate(sorted(older.items())):
        # The last takes what rounding has left.
        is_last = position == len(older) - 1
        kept = left if is_last else round(left * share / weight)
        found[key], left, weight = kept, left - kept, weight - share
    found[new] = taken
    return {key: share for key, share in found.items() if share}


def share_at(total: int, step: int) -> int:
    """``step`` percent of ``total`` percent, at least 1 as long as there is any."""
    return min(total, max(1, (total * step + 50) // 100))

"""What admission goes by: one immutable value, exchanged as a whole when settings change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.control.rights import CLASSES, PriorityClass

if TYPE_CHECKING:
    from gateway.settings import Settings

# What an engine's queue knows of classes; lower runs earlier (GenerateRequest.priority).
ENGINE_PRIORITY: dict[PriorityClass, int] = {"interactive": -10, "default": 0, "batch": 100}


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds and shares. Triples go by class, in the order of ``rights.CLASSES``.

    Attributes:
        max_queue: requests that may wait for one engine, its own queue included.
        class_queue: of these, the most of each class.
        timeout_s: how long a request may wait.
        shares: of the engine's room, what is kept for a class while it is in use.
        overcommit: share of its room that an engine is given on top, to queue by itself.
        promote_s: wait after which a request's class no longer holds it back.
    """

    max_queue: int = 256
    class_queue: tuple[int, int, int] = (100_000, 100_000, 100_000)
    timeout_s: tuple[float, float, float] = (30.0, 120.0, 600.0)
    shares: tuple[float, float, float] = (0.2, 0.1, 0.05)
    overcommit: float = 0.125
    promote_s: float = 15.0

    def extra_slots(self, slots: int) -> int:
        """Requests that an engine with this many slots is given to queue by itself."""
        return min(math.ceil(slots * self.overcommit), self.max_queue)


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings ask for."""
    most = settings.max_queue
    interactive, default, batch = (
        most if own is None else min(own, most)
        for own in (
            settings.max_queue_interactive,
            settings.max_queue_default,
            settings.max_queue_batch,
        )
    )
    return Policy(
        max_queue=most,
        class_queue=(interactive, default, batch),
        timeout_s=(
            settings.queue_timeout_interactive_s,
            settings.queue_timeout_default_s,
            settings.queue_timeout_batch_s,
        ),
        shares=(settings.share_interactive, settings.share_default, settings.share_batch),
        overcommit=settings.admission_overcommit,
        promote_s=settings.queue_promote_s,
    )


def class_of(priority: int) -> int:
    """Index in CLASSES of a request with this engine priority."""
    return 0 if priority < 0 else 2 if priority > 0 else 1


def priority_of(name: PriorityClass) -> int:
    """The engine priority of a class."""
    return ENGINE_PRIORITY[name]


def lower_of(one: PriorityClass, other: PriorityClass) -> PriorityClass:
    """The class of the two that waits longer."""
    return CLASSES[max(CLASSES.index(one), CLASSES.index(other))]

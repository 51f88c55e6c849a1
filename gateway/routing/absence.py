"""Times in which no server of a model is there: its requests wait in the gateway's queue.

This is what scaling to zero needs: Kubernetes' Services keep no requests, so whoever is to start
the first replica has to see in a metric that somebody waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.control.admission.estimates import LONGEST_RETRY_S
from gateway.routing.remote import RemoteTarget


class Absence:
    """Owned by the event loop; times are ``time.perf_counter()``.

    Args:
        remotes: every target of the model.
        before: of the pool that this one takes over from.

    Attributes:
        wait_s: how long a request waits for a server; 0: not at all.
    """

    def __init__(
        self, wait_s: float, remotes: Sequence[RemoteTarget], before: Absence | None = None
    ) -> None:
        self.wait_s = wait_s
        self._remotes = remotes
        self._since: float | None = None if before is None else before._since
        self._took_s: float | None = None if before is None else before._took_s

    @property
    def lasts(self) -> bool:
        """Whether requests have to wait: discovery finds no server, or active checks have found
        every one of them to be down."""
        return bool(self.wait_s) and not any(
            upstream.well for remote in self._remotes for upstream in remote.upstreams
        )

    def begin(self, now: float) -> None:
        """Somebody waits for a server."""
        if self._since is None:
            self._since = now

    def end(self, now: float) -> None:
        """Somebody has got one."""
        if self._since is not None:
            self._took_s = now - self._since
            self._since = None

    def retry_after(self, now: float) -> int:
        """Whole seconds until a server is expected: the last start took as long as this one will.
        Before any has been seen, as long again as this one has taken so far."""
        so_far = 0.0 if self._since is None else now - self._since
        left = so_far if self._took_s is None else self._took_s - so_far
        return min(LONGEST_RETRY_S, max(1, math.ceil(left)))

"""The machine's memory read bandwidth, the ceiling of decoding one stream.

Every decoded token of one stream reads all weights once, so bandwidth divided by their
bytes bounds tokens per second, whatever the engine.
"""

from __future__ import annotations

import threading
import time

import numpy as np

# Well past any last-level cache, so that the reads come from memory.
BYTES_PER_THREAD = 384 * 1024 * 1024


class BandwidthProbe:
    """Threads that each read a buffer of their own; numpy releases the GIL meanwhile."""

    def __init__(self, threads: int) -> None:
        self._buffers = [
            np.full(BYTES_PER_THREAD // 4, i, np.float32) for i in range(1, threads + 1)
        ]

    def measure(self, passes: int = 3) -> float:
        """Bytes per second over ``passes`` reads, the best pass of them."""
        return max(self._once() for _ in range(passes))

    def _once(self) -> float:
        threads = [threading.Thread(target=buffer.max) for buffer in self._buffers]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(buffer.nbytes for buffer in self._buffers) / (time.perf_counter() - start)

"""Data-parallel training over processes of one thread each.

Threads inside one process meet at every small matrix product; on a machine shared with other
work one of them is often waiting. Processes meet once a step, which on two busy cores is about
twice as fast and on two free cores about as fast.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn


def run(processes: int, main: Callable[[], None]) -> None:
    """Runs `main` in this process, or in `processes` new ones that share gradients."""
    if processes == 1:
        main()
        return
    with tempfile.TemporaryDirectory() as folder:
        spawn(_worker, args=(processes, f"file://{folder}/meet", main), nprocs=processes)


def _worker(rank: int, processes: int, meeting: str, main: Callable[[], None]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    try:
        main()
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(tensor: Tensor) -> Tensor:
    """Sums a tensor over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def share(tensor: Tensor, owner: int) -> Tensor:
    """Copies a tensor from process `owner` to all others, in place."""
    if dist.is_initialized():
        dist.broadcast(tensor, owner)
    return tensor

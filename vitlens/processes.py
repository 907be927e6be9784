"""The processes that torchrun started: who this one is, and how all agree. Alone, everything here is the identity."""

from __future__ import annotations

import os
from typing import Any, TypeVar

T = TypeVar("T")


def world() -> tuple[int, int]:
    """(rank, number of processes)."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def local_world() -> tuple[int, int]:
    """(rank, number of processes) on this machine, as torchrun says."""
    if world()[1] == 1:
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launched() -> tuple[int, int]:
    """(rank, number of processes) as torchrun, or whoever started this process, says; they need not have met."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def from_all(entries: list[T]) -> list[T]:
    """The lists of all processes, one after the other in rank order."""
    count = world()[1]
    if count == 1:
        return entries
    import torch.distributed as dist

    lists: list[Any] = [None] * count
    dist.all_gather_object(lists, entries)
    return [entry for part in lists for entry in part]


def from_main(value: T) -> T:
    """What the first process holds."""
    if world()[1] == 1:
        return value
    import torch.distributed as dist

    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait for all."""
    if world()[1] > 1:
        import torch.distributed as dist

        dist.barrier()


def leave() -> None:
    """The end of a program that several processes ran."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()

"""Items become batches: read and preprocessed in order, by other processes if wanted; what cannot be read is one item's error."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

from vitlens import checks
from vitlens.errors import InputError, OptionError
from vitlens.modality import Modality
from vitlens.sources import name_of

Workers = int | Literal["auto"]
"""Processes that read and preprocess; "auto" leaves it to `reading_processes`."""
WORTH_A_PROCESS = 64
"""Items for which one more process that reads is worth its start."""
NOT_FORKED = ("lance", "ray")
"""Libraries whose threads do not survive a fork: where one is loaded, items are read in this process."""


@dataclass(frozen=True)
class Batch:
    """Preprocessed items and their positions among all; and by position the errors of those that could not be read.

    `remarks` are, by position too, what readers have to say of items that they read: gaps, units, a cut.
    """

    positions: list[int]
    items: list[Tensor]
    errors: dict[int, InputError]
    remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)


def batches(
    modality: Modality,
    items: Sequence[Any],
    *,
    batch_size: int,
    num_workers: Workers = 0,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Batch]:
    """The items, read with `options`, `batch_size` at a time.

    Raises:
        OptionError: a batch size or number of processes that is none.
    """
    checks.whole("batch_size", batch_size, least=1)
    if num_workers == "auto":
        num_workers = 0 if modality.tower == "text" else reading_processes(len(items))
    checks.whole('num_workers (or "auto")', num_workers, least=0)
    from torch.utils.data import DataLoader

    readers = cast(Any, _Items(modality, items, dict(options or {})))
    for loaded in DataLoader(readers, batch_size=batch_size, num_workers=num_workers, collate_fn=list):
        good = [(position, x) for position, x, _ in loaded if isinstance(x, Tensor)]
        bad = {position: x for position, x, _ in loaded if isinstance(x, InputError)}
        remarks = {position: said for position, _, said in loaded if said}
        yield Batch([position for position, _ in good], [x for _, x in good], bad, remarks)


def reading_processes(items: int) -> int:
    """How many processes read `items` while the model computes: one for 64 items, at most one for two cores, no more than 8.

    None where a process cannot be started cheaply and safely: systems that do not fork, threads other than the main one,
    processes that may have no children, and beside libraries that do not bear it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    alone = threading.current_thread() is threading.main_thread() and not multiprocessing.current_process().daemon
    if start != "fork" or not alone or any(name in sys.modules for name in NOT_FORKED):
        return 0
    return min(items // WORTH_A_PROCESS, cores // 2, 8)


@dataclass
class _Items:
    """Map-style dataset: position -> (position, preprocessed tensor or InputError, remarks); crosses into loader workers."""

    modality: Modality
    items: Sequence[Any]
    options: dict[str, Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[int, Tensor | InputError, tuple[str, ...]]:
        try:
            sample = self.modality.load(self.items[index], **self.options)
            return index, self.modality.transform(sample), tuple(sample.info.get("remarks", ()))
        except InputError as error:
            return index, error, ()
        except OptionError as error:
            item = self.items[index]
            if not isinstance(item, Mapping):
                raise
            return index, InputError(name_of(item.get("source")), str(error), self.modality.accepts), ()  # the item's own


def same_shape(batch: Sequence[Tensor]) -> list[list[int]]:
    """Positions of the items that can be stacked, group by group."""
    groups: dict[torch.Size, list[int]] = {}
    for place, x in enumerate(batch):
        groups.setdefault(x.shape, []).append(place)
    return list(groups.values())


def distinct_views(x: Tensor, input_ndim: int | None) -> Tensor:
    """An item [views, ...] with one view where all are equal (a short sound's clips, a still video's frames), else as it is.

    `input_ndim` is that of the ModEmbed: an item of as many dimensions has views. The mean over equal views is one of them.
    """
    if x.ndim != input_ndim or len(x) == 1 or not torch.equal(x[1:], x[:1].expand_as(x[1:])):
        return x
    return x[:1]


def halving(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """run(x), in two halves when a CUDA device's memory does not hold it."""
    try:
        return run(x)
    except torch.OutOfMemoryError:
        if len(x) == 1:
            raise
    torch.cuda.empty_cache()
    middle = len(x) // 2
    return torch.cat([halving(run, x[:middle]), halving(run, x[middle:])])

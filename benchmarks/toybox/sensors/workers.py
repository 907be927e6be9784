"""Drawing over several processes: what `make` and `drawn` share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def each(work: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """What `work(*job)` returns for every job, as they are done: by `workers` one-thread processes, below two by this one.

    When one fails or the caller leaves, the jobs that have not begun are given up.
    """
    if workers < 2 or len(jobs) < 2:
        yield from (work(*job) for job in jobs)
        return
    # Not forked: the ray caster's threads would not survive it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, torch.set_num_threads, (1,)) as pool:
        try:
            yield from (done.result() for done in as_completed([pool.submit(work, *job) for job in jobs]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

"""One file of what is no local file: shards, bytes in tables, objects of a store. Its parts lie in `<out>.partial/` meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from vitlens.errors import OptionError
from vitlens.space import EmbeddingSpace
from vitlens.store.bulk.job import BulkJob, Pool, first_failures
from vitlens.store.engine import Progress
from vitlens.store.files import Column, Content, load_embeddings, write_embeddings
from vitlens.store.job import Result, write_errors
from vitlens.vectors import WHOLE, Packing


def into_one_file(job: BulkJob, out: Path, pool: Pool, progress: Progress | None = None, *, packing: Packing = WHOLE) -> Result:
    """Run a bulk job whose parts are whole, and put them together in the file `out`, its vectors as `packing` says.

    Raises:
        OptionError: parts that could not be made; the others are kept, and the same command goes on.
        VitlensError: as `BulkJob.run`.
    """
    done = job.run(pool, progress=progress)
    if not done.complete:
        name, reason = next(iter(done.lost.items()), ("", "other processes make them"))
        raise OptionError(
            f"{len(done.lost) or done.elsewhere} of {done.pieces} parts in {job.out} are missing ({name}: {reason})"
        )
    failures = first_failures(job.out, done.pieces, done.errors)
    errors_file = write_errors(out, failures)
    space = None
    if done.counts:
        stored = load_embeddings(job.out.name)
        space = EmbeddingSpace(stored.space.name, stored.space.dim)
        columns = {
            m: Column(stored.names[m], stored.rows[m], partial(_whole, stored[m].numpy()), stored.digests[m]) for m in stored
        }
        write_embeddings(out, Content(space, job.model_name, columns, packing, weights=stored.weights))
        space = packing.space(space)
    shutil.rmtree(job.out.name)
    return Result(out if space else None, space, done.counts, failures, errors_file, done.resumed_items, done.seconds)


def _whole(vectors: np.ndarray) -> Iterator[np.ndarray]:
    yield vectors

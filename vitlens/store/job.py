"""The job of `vitlens embed`: items into one file, by way of a store in `<out>.partial/`.

A job stopped at any moment - Ctrl-C, kill, power - goes on where its last part ended, and gives the same file. What it holds is
known by content: a file that changed meanwhile is embedded anew, one that is gone is a line of the report.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens import checks
from vitlens.disk import write_csv
from vitlens.modality import get_modality, modality_class
from vitlens.precision import AUTO, PRECISIONS
from vitlens.space import EmbeddingSpace
from vitlens.store.engine import Engine, Progress
from vitlens.store.files import Column, Content, check_output, write_embeddings
from vitlens.store.items import Failure, Inputs, Item
from vitlens.store.parts import Parts
from vitlens.store.store import Embedded, EmbeddingStore, Listed
from vitlens.store.work_folder import WorkFolder
from vitlens.vectors import WHOLE, Packing
from vitlens.words import unknown_words

if TYPE_CHECKING:
    from vitlens.batches import Workers
    from vitlens.model import ViTLens

JOB_FORMAT = 2
PIECE = 4096
"""Embeddings in memory while the output is written."""
LOST = "no such file any more: it was one of the items when the job began"


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a job, with a message of what is kept."""


@dataclass(frozen=True)
class Settings:
    """How a job runs. `dtype` and `read_options` change the result and may not change between a stop and the next start."""

    dtype: str = "fp32"
    read_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    batch_size: int = 32
    num_workers: Workers = "auto"
    save_every: int = 1000
    """Items of a part, rounded up to whole batches."""
    save_seconds: float = 60.0
    """A part is written after this time even if it is small."""
    overwrite: bool = False
    packing: Packing = WHOLE
    """What vectors are written as. What a stopped job keeps is whole all the same."""

    def __post_init__(self) -> None:
        checks.one_of("--dtype", self.dtype, (*PRECISIONS, AUTO))
        checks.whole("--batch-size", self.batch_size, least=1)
        if self.num_workers != "auto":
            checks.whole("--num-workers", self.num_workers, least=0)
        checks.whole("--save-every", self.save_every, least=1)


@dataclass(frozen=True)
class Remark:
    """What a reader has to say of an item that it read: gaps, units, a cut."""

    item: str
    modality: str
    remark: str


@dataclass(frozen=True)
class Result:
    """What a finished job wrote. `output` is None when nothing could be embedded."""

    output: Path | None
    space: EmbeddingSpace | None
    counts: dict[str, int]
    failures: list[Failure]
    errors_file: Path | None
    resumed: int
    """Items that an earlier, stopped run of the same command had done."""
    seconds: float
    remarks: list[Remark] = field(default_factory=list)
    """What readers had to say of items that this run read."""
    precision: dict[str, str] = field(default_factory=dict)
    """The arithmetic of each modality, as torch calls it."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {
            "output": str(self.output) if self.output else None,
            "space": asdict(self.space) if self.space else None,
            "counts": self.counts,
            "precision": self.precision,
            "resumed": self.resumed,
            "seconds": round(self.seconds, 3),
            "errors_file": str(self.errors_file) if self.errors_file else None,
            "errors": [failure.to_dict() for failure in self.failures],
            "remarks": [asdict(remark) for remark in self.remarks],
        }


@dataclass(frozen=True)
class Job:
    """Inputs to embed into the file `out` with the model called `model_name`."""

    inputs: Inputs
    out: Path
    model_name: str
    settings: Settings

    def check(self) -> None:
        """Whether the output can be written.

        Raises:
            OptionError: it exists (without `overwrite`), is one of the inputs, or has no known type.
        """
        items = self.inputs.items
        files = (item.source for item in items if isinstance(item.source, Path))
        check_output(self.out, [item.name for item in items], inputs=files, overwrite=self.settings.overwrite)

    def identity(self) -> dict[str, Any]:
        """What two runs must have in common to be the same job, as far as known before the model is loaded."""
        settings = self.settings
        return {"format": JOB_FORMAT, "model": self.model_name, "dtype": settings.dtype, "read options": settings.read_options}

    def run(self, load: Callable[[list[str]], ViTLens], *, progress: Progress | None = None) -> Result:
        """Embed everything, going on with what an earlier run of the same job left.

        `load` gets the modalities needed and gives the model; it is called after everything else was checked, and not when
        nothing is left to embed. `progress(modality, done, total)` is told at the start and after each batch.

        Raises:
            OptionError: an output that exists or cannot be, a work folder of another job.
            Stopped: Ctrl-C; what is done is kept.
        """
        begun = time.monotonic()
        self.check()
        groups = self.inputs.by_modality()
        if not groups:
            failures = list(self.inputs.failures)
            return Result(None, None, {}, failures, write_errors(self.out, failures), 0, time.monotonic() - begun)
        work = WorkFolder(self.out)
        run = None
        try:
            files = [os.path.abspath(item.source) for item in self.inputs.items if isinstance(item.source, Path)]
            lost = work.open(self.identity(), files)
            run = _Run(self.settings, groups, work, progress)
            run.look()
            resumed = run.done()
            found = run.embed(load)
            digests = {modality: listed.digests for modality, listed in run.lists.items()}
            output, counts, failures = self._merge(groups, found, digests, lost)
            errors_file = write_errors(self.out, failures)
            work.close(remove=True)
            seconds = time.monotonic() - begun
            precision = {modality: str(embedded.parts.about["precision"]) for modality, embedded in found.items()}
            return Result(
                output,
                self.settings.packing.space(_space(found)),
                counts,
                failures,
                errors_file,
                resumed,
                seconds,
                run.remarks,
                precision,
            )
        except KeyboardInterrupt as error:
            done, total = run.done() if run else 0, len(self.inputs.items)
            kept = f"{done} of {total} items are kept in {work.path}; the same command goes on from there"
            raise Stopped(f"stopped: {kept if done else 'no item was embedded yet'}") from error
        finally:
            work.close()

    def _merge(
        self, groups: dict[str, list[Item]], found: dict[str, Embedded], digests: dict[str, np.ndarray], lost: Sequence[str]
    ) -> tuple[Path | None, dict[str, int], list[Failure]]:
        """Put everything together into the output; returns it (None: nothing was embedded), counts and failures."""
        columns: dict[str, Column] = {}
        failures = list(self.inputs.failures)
        for modality, embedded in found.items():
            items, kept = groups[modality], embedded.kept
            failures += [Failure.of(items[i].row, items[i].name, modality, error) for i, error in embedded.errors.items()]
            names, rows = [items[i].name for i in kept], [items[i].row for i in kept]
            columns[modality] = Column(names, rows, partial(normalised, embedded), [digests[modality][i].tobytes() for i in kept])
        last = max([*(item.row for item in self.inputs.items), *(failure.row for failure in self.inputs.failures)])
        failures += [Failure(last + number, name, "", LOST) for number, name in enumerate(lost, start=1)]
        counts = {modality: len(column.items) for modality, column in columns.items()}
        if any(counts.values()):
            weights = {modality: str(embedded.parts.about["weights"]) for modality, embedded in found.items()}
            write_embeddings(self.out, Content(_space(found), self.model_name, columns, self.settings.packing, weights=weights))
        return (self.out if any(counts.values()) else None), counts, sorted(failures, key=lambda failure: failure.row)


@dataclass
class _Run:
    """One run of a job, in its work folder."""

    settings: Settings
    groups: dict[str, list[Item]]
    work: WorkFolder
    progress: Progress | None
    lists: dict[str, Listed] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = EmbeddingStore(self.work.path)

    def look(self) -> None:
        """See what the items are."""
        for modality, items in self.groups.items():
            self.lists[modality] = self.store.listed(
                [item.value for item in items],
                get_modality(modality),
                read_options=self.settings.read_options.get(modality),
                progress=self.progress,
            )

    def known(self) -> dict[str, Embedded]:
        """What is in the folder, of modalities that were begun."""
        abouts = self.work.known().get("embeddings", {})
        return {m: found.within(Parts(self.work.path, abouts[m])) for m, found in self.lists.items() if m in abouts}

    def done(self) -> int:
        """Items that need not be looked at any more."""
        return sum(len(found.rows) - found.missing - len(self.lists[m].errors) for m, found in self.known().items())

    def embed(self, load: Callable[[list[str]], ViTLens]) -> dict[str, Embedded]:
        """Embed what is missing; the model is loaded if there is something."""
        found = self.known()
        if list(found) == list(self.groups) and not any(embedded.missing for embedded in found.values()):
            return found
        settings = self.settings
        engine = Engine(
            load(list(self.groups)),
            settings.batch_size,
            settings.num_workers,
            settings.dtype,
            settings.save_every,
            settings.save_seconds,
            chosen=self._chosen(),
            remark=lambda modality, name, text: self.remarks.append(Remark(name, modality, text)),
        )
        for modality, items in self.groups.items():
            wordy = modality_class(modality).tower == "text"
            if wordy and (words := unknown_words(engine.model.modality(modality), (item.value for item in items))):
                warnings.warn(words, stacklevel=2)
        self.work.settle({modality: engine.about(modality) for modality in self.groups})
        for modality, listed in self.lists.items():
            found[modality] = self.store.embed(
                engine, modality, listed, on_error="skip", again=False, progress=partial(self._report, len(listed.items))
            )
        return found

    def _chosen(self) -> dict[str, str]:
        """Of --dtype auto: what the run before chose, so that its batches and these are of one arithmetic."""
        names = {called: name for name, called in PRECISIONS.items()}
        return {modality: names[about["precision"]] for modality, about in self.work.known().get("embeddings", {}).items()}

    def _report(self, total: int, modality: str, done: int, todo: int) -> None:
        if self.progress:
            self.progress(modality, total - todo + done, total)


def _space(found: dict[str, Embedded]) -> EmbeddingSpace:
    about = next(iter(found.values())).parts.about
    return EmbeddingSpace(about["space"], about["dim"])


def normalised(embedded: Embedded) -> Iterator[np.ndarray]:
    """The embeddings of a list that are there, of length 1, in pieces [k, E]."""
    import torch
    import torch.nn.functional as F

    rows = embedded.rows[embedded.rows >= 0]
    for at in range(0, len(rows), PIECE):
        yield F.normalize(torch.from_numpy(embedded.parts.vectors(rows[at : at + PIECE])), dim=-1).numpy()


def write_errors(out: Path, failures: Sequence[Failure]) -> Path | None:
    """`<out>.errors.csv` with a line per failed input; an old one is removed when there is none."""
    path = out.with_name(out.name + ".errors.csv")
    if failures:
        path.parent.mkdir(parents=True, exist_ok=True)
    return write_csv(path, [{"item": failure.name, "modality": failure.modality, "error": failure.error} for failure in failures])

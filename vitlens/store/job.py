"""The resumable embedding job: results go to `<out>.partial/` shard by shard, and become one file at the end.

A job stopped at any moment - Ctrl-C, kill, power - goes on where its last shard ended. Shards hold whole batches, so that batches
fall the same way with or without a stop: both give the same file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitlens.cli.inputs import Failure, Inputs, Item, reason_of
from vitlens.disk import atomic
from vitlens.errors import OptionError
from vitlens.space import EmbeddingSpace
from vitlens.store.files import Column, Content, check_output, write_embeddings
from vitlens.store.work_folder import Shard, WorkFolder

if TYPE_CHECKING:
    from vitlens.model import ViTLens

JOB_FORMAT = 1
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a job, with a message of what is kept."""


@dataclass(frozen=True)
class Settings:
    """How a job runs. `dtype` and `read_options` change the result and may not change between a stop and the next start."""

    dtype: str = "fp32"
    read_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    batch_size: int = 32
    num_workers: int = 0
    save_every: int = 1000
    """Items of a shard, rounded up to whole batches."""
    save_seconds: float = 60.0
    """A shard is written after this time even if it is small."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise OptionError(f"--dtype must be {', '.join(DTYPES)}, found {self.dtype!r}")
        for option, least in (("batch_size", 1), ("num_workers", 0), ("save_every", 1)):
            if getattr(self, option) < least:
                raise OptionError(f"--{option.replace('_', '-')} must be {least} or more, found {getattr(self, option)}")


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

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {
            "output": str(self.output) if self.output else None,
            "space": asdict(self.space) if self.space else None,
            "counts": self.counts,
            "resumed": self.resumed,
            "seconds": round(self.seconds, 3),
            "errors_file": str(self.errors_file) if self.errors_file else None,
            "errors": [failure.to_dict() for failure in self.failures],
        }


def fingerprint(model: ViTLens) -> str:
    """A hash over names, shapes and 64 values of every tensor of `model`, the same on every device."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        flat = value.detach().flatten()
        places = torch.linspace(0, max(0, flat.numel() - 1), min(64, flat.numel()), dtype=torch.float64).long()
        digest.update(f"{key} {list(value.shape)}".encode())
        digest.update(flat[places.to(flat.device)].cpu().double().numpy().tobytes())
    return digest.hexdigest()


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
        check_output(self.out, [item.name for item in self.inputs.items], overwrite=self.settings.overwrite)
        files = (item.source for item in self.inputs.items if isinstance(item.source, Path))
        if self.out.exists() and any(file.exists() and file.samefile(self.out) for file in files):
            raise OptionError(f"output {self.out} is one of the inputs: choose another name")

    def identity(self) -> dict[str, Any]:
        """What two runs must have in common to be the same job, as far as known before the model is loaded."""
        digest = hashlib.sha256()
        for item in self.inputs.items:
            digest.update(
                json.dumps([item.modality, str(item.source), item.options], sort_keys=True, default=str).encode() + b"\n"
            )
        return {
            "format": JOB_FORMAT,
            "model": self.model_name,
            "dtype": self.settings.dtype,
            "read options": self.settings.read_options,
            "number of items": len(self.inputs.items),
            "list of items": digest.hexdigest(),
        }

    def run(
        self,
        load: Callable[[list[str]], ViTLens],
        *,
        started: Callable[[str, int, int], None] = lambda modality, done, total: None,
        advance: Callable[[], None] = lambda: None,
    ) -> Result:
        """Embed everything, going on with what an earlier run of the same job left.

        `load` gets the modalities needed and gives the model; it is called after everything else was checked, and not when
        nothing is left to embed. `started(modality, done, total)` and `advance()` (after each item) report progress.

        Raises:
            OptionError: an output that exists or cannot be, a work folder of another job.
            Stopped: Ctrl-C; what is done is kept.
        """
        begun = time.monotonic()
        self.check()
        groups = self.inputs.by_modality()
        if not groups:
            failures = list(self.inputs.failures)
            return Result(None, None, {}, failures, _write_errors(self.out, failures), 0, time.monotonic() - begun)
        work = WorkFolder(self.out)
        try:
            work.open(self.identity())
            todo = {modality: work.todo(modality, len(items)) for modality, items in groups.items()}
            resumed = len(self.inputs.items) - sum(map(len, todo.values()))
            space = self._embed(work, groups, todo, load, started, advance)
            output, counts, failures = self._merge(work, groups, space)
            errors_file = _write_errors(self.out, failures)
            work.close(remove=True)
            return Result(output, space, counts, failures, errors_file, resumed, time.monotonic() - begun)
        except KeyboardInterrupt as error:
            total = len(self.inputs.items)
            done = total - sum(len(work.todo(modality, len(items))) for modality, items in groups.items())
            kept = f"{done} of {total} items are kept in {work.path}; the same command goes on from there"
            raise Stopped(f"stopped: {kept if done else 'no item was embedded yet'}") from error
        finally:
            work.close()

    def _embed(
        self,
        work: WorkFolder,
        groups: dict[str, list[Item]],
        todo: dict[str, list[int]],
        load: Callable[[list[str]], ViTLens],
        started: Callable[[str, int, int], None],
        advance: Callable[[], None],
    ) -> EmbeddingSpace:
        known = work.known()
        if "space" in known and not any(todo.values()):
            return EmbeddingSpace(**known["space"])
        model = load(list(groups))
        work.settle({"weights": fingerprint(model), "space": asdict(model.space)})
        for modality, items in groups.items():
            started(modality, len(items) - len(todo[modality]), len(items))
            for shard in _shards(model, modality, items, todo[modality], self.settings, advance):
                try:
                    work.add(modality, shard)
                except KeyboardInterrupt:
                    work.add(modality, shard)
                    raise
        return model.space

    def _merge(
        self, work: WorkFolder, groups: dict[str, list[Item]], space: EmbeddingSpace
    ) -> tuple[Path | None, dict[str, int], list[Failure]]:
        """Put the shards together into the output; returns it (None: nothing was embedded), counts and failures."""
        columns: dict[str, Column] = {}
        failures = list(self.inputs.failures)
        for modality, items in groups.items():
            kept: list[int] = []
            for shard in work.shards(modality):
                kept += shard.kept.tolist()
                for place, message in zip(shard.failed.tolist(), shard.messages, strict=True):
                    failures.append(Failure(items[place].row, items[place].name, modality, message))
            pieces = partial(_vectors, work, modality)
            columns[modality] = Column([items[p].name for p in kept], [items[p].row for p in kept], pieces)
        counts = {modality: len(column.items) for modality, column in columns.items()}
        if any(counts.values()):
            write_embeddings(self.out, Content(space, self.model_name, columns))
        failures.sort(key=lambda failure: failure.row)
        return (self.out if any(counts.values()) else None), counts, failures


def _vectors(work: WorkFolder, modality: str) -> Iterator[np.ndarray]:
    return (shard.embeddings for shard in work.shards(modality))


def _shards(
    model: ViTLens, modality: str, items: Sequence[Item], todo: list[int], settings: Settings, advance: Callable[[], None]
) -> Iterator[Shard]:
    """Embed the items at the positions `todo`, in shards of whole batches; when stopped or failing, one last of what is done."""
    stream = model.stream(
        modality,
        [items[place].value for place in todo],
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        dtype=DTYPES[settings.dtype],
        read_options=settings.read_options.get(modality),
    )
    ready: list[tuple[int, Any]] = []
    batch: list[tuple[int, Any]] = []
    saved = time.monotonic()
    stop: BaseException | None = None
    try:
        for encoded in stream:
            batch.append((todo[encoded.index], encoded))
            advance()
            if (encoded.index + 1) % settings.batch_size and encoded.index + 1 < len(todo):
                continue
            ready.extend(batch)
            batch = []
            if len(ready) >= settings.save_every or time.monotonic() - saved >= settings.save_seconds:
                full, ready = ready, []
                yield _shard(full, model.space.dim)
                saved = time.monotonic()
    except (KeyboardInterrupt, Exception) as error:
        stop = error
    if ready:
        yield _shard(ready, model.space.dim)
    if stop is not None:
        raise stop


def _shard(entries: list[tuple[int, Any]], dim: int) -> Shard:
    kept = [(place, encoded.embedding) for place, encoded in entries if encoded.embedding is not None]
    failed = [(place, reason_of(encoded.error)) for place, encoded in entries if encoded.embedding is None]
    embeddings = torch.stack([vector for _, vector in kept]).numpy() if kept else np.empty((0, dim), np.float32)
    return Shard(
        np.array([place for place, _ in kept], np.int64),
        embeddings,
        np.array([place for place, _ in failed], np.int64),
        [message for _, message in failed],
    )


def _write_errors(out: Path, failures: Sequence[Failure]) -> Path | None:
    """`<out>.errors.csv` with a line per failed input; an old one is removed when there is none."""
    path = out.with_name(out.name + ".errors.csv")
    if not failures:
        path.unlink(missing_ok=True)
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item", "modality", "error"])
        writer.writerows((failure.name, failure.modality, failure.error) for failure in failures)
    return path

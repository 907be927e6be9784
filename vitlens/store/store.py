"""The one store of embeddings: what of a list is not on disk is embedded, kept, and never embedded again.

found = EmbeddingStore(folder).embed(Engine(model), "image", paths, on_error="skip")
found.kept, found.errors, found.vectors

Embeddings are kept by the weights, the preprocessing, the precision, and what an item holds. Any number of processes share the
work out. A run that was stopped, also by `kill -9`, goes on where its last part reached the disk, with the batches it would have
formed without the stop. Items that could not be read are known too, and are tried again in batches of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitlens.errors import InputError
from vitlens.modality import Modality
from vitlens.processes import barrier, from_all, local_world, world
from vitlens.sources import is_path, name_of
from vitlens.store.digests import DIGEST, Contents
from vitlens.store.engine import Engine, Items, Progress
from vitlens.store.parts import Part, Parts

if TYPE_CHECKING:
    from torch import Tensor

OnError = Literal["raise", "skip"]
Source = Callable[[int], tuple[Any, Mapping[str, Any]]]
"""Position of an item -> what it is (path, array, Sample ...) and its read options. May raise InputError."""
_OFTEN = 500


def default_folder() -> Path:
    """VITLENS_CACHE, else `vitlens` in the user's cache folder."""
    if os.environ.get("VITLENS_CACHE"):
        return Path(os.environ["VITLENS_CACHE"]) / "embeddings"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitlens" / "embeddings"


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a list in a store: `rows` int64 [n] of `parts`, -1 for the items in `errors`."""

    parts: Parts
    rows: np.ndarray
    errors: dict[int, InputError]

    @property
    def kept(self) -> list[int]:
        """Positions of the items that have an embedding."""
        return np.flatnonzero(self.rows >= 0).tolist()

    @property
    def vectors(self) -> Tensor:
        """The embeddings [k, E] float32 of those, not normalised."""
        import torch

        return torch.from_numpy(self.parts.vectors(self.rows[self.rows >= 0]))

    @property
    def missing(self) -> int:
        """How many items have neither an embedding nor an error."""
        return len(self.rows) - len(self.kept) - len(self.errors)


@dataclass(frozen=True)
class Listed:
    """Items of one modality, digests uint8 [n, 16] of what they hold, and the errors of those that cannot be opened."""

    items: Items
    read_options: Mapping[str, Any]
    """Of all items; one's own come first."""
    source: Source
    digests: np.ndarray
    errors: dict[int, InputError]

    def same_as(self, bad: Mapping[bytes, InputError]) -> dict[int, InputError]:
        """Errors of the items that hold what cannot be read, each with its own name."""
        keys = [digest.tobytes() for digest in self.digests] if bad else []
        places = [index for index, key in enumerate(keys) if key in bad and index not in self.errors]
        return {i: InputError(name_of(self.source(i)[0]), bad[keys[i]].found, bad[keys[i]].accepted) for i in places}

    def within(self, parts: Parts) -> Embedded:
        """What is on disk of these items: embeddings, and why others have none as far as that is known."""
        rows = parts.rows(self.digests)
        bad = {index: error for index, error in self.same_as(parts.bad).items() if rows[index] < 0}
        return Embedded(parts, rows, self.errors | bad)


class EmbeddingStore:
    """Embeddings in a folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.computed = 0
        """Embeddings that this process did not find on disk."""

    def listed(
        self,
        items: Items,
        modality: Modality,
        *,
        source: Source | None = None,
        read_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Listed:
        """Look at what items are; files that are new or have changed are read."""

        def plain(index: int) -> tuple[Any, Mapping[str, Any]]:
            item = items[index]
            own = {key: value for key, value in item.items() if key != "source"} if isinstance(item, Mapping) else {}
            return item.get("source") if isinstance(item, Mapping) else item, {**options, **own}

        options, source = dict(read_options or {}), source or plain
        digests = np.zeros((len(items), DIGEST), np.uint8)
        errors: dict[int, InputError] = {}
        with Contents(self.folder) as contents:
            for index in range(len(items)):
                try:
                    digests[index] = np.frombuffer(contents.digest(*source(index), modality), np.uint8)
                except InputError as error:
                    errors[index] = error
                done = index + 1
                if progress and len(items) >= _OFTEN and (done % _OFTEN == 0 or done == len(items)):
                    progress(f"looking at {modality.name}", done, len(items))
        return Listed(items, options, source, digests, errors)

    def embed(
        self,
        engine: Engine,
        modality: str,
        items: Items | Listed,
        *,
        source: Source | None = None,
        on_error: OnError = "raise",
        again: bool = True,
        progress: Progress | None = None,
    ) -> Embedded:
        """Embeddings of items, in order, once all processes have done their share.

        `again` tries items once more that an earlier run could not read: after the others, so that their batches stay the
        same; before them when errors end the run.

        Raises:
            InputError: an item that cannot be read, unless `on_error` is "skip"; what was embedded until then stays on disk.
            ModalityError: a modality the model does not have.
        """
        found = items if isinstance(items, Listed) else self.listed(items, engine.model.modality(modality), source=source)
        parts = Parts(self.folder, engine.about(modality))
        known = found.within(parts).errors
        errors = _agreed(found.errors if again else known, on_error)
        for among in (world(), local_world(), (0, 1)):  # again, for machines and processes that do not share the folder
            missing = parts.rows(found.digests) < 0
            missing[list(errors)] = False
            first = missing.copy()
            first[list(known)] = False
            groups = [first, missing & ~first]
            for group in groups if on_error == "skip" else reversed(groups):
                todo = _share(group, found.digests, engine.batch_size, among)
                if todo and not (errors and on_error == "raise"):
                    errors |= self._compute(engine, modality, parts, found, todo, on_error, progress)
            barrier()
            parts.reload()
            new = {key: error for index, error in errors.items() if (key := found.digests[index].tobytes()) in parts.bad}
            errors = _agreed(found.same_as(new) | errors, on_error)
        rows = parts.rows(found.digests)
        rows[list(errors)] = -1
        return Embedded(parts, rows, errors)

    def trim(self, most: int) -> None:
        """Remove the parts that were not used for longest, until `most` bytes of them are left: for a store of its own."""
        parts = []
        for file in self.folder.glob("*/*.safetensors"):
            with suppress(FileNotFoundError):  # another process trims, too
                parts.append((file.stat().st_mtime_ns, file.stat().st_size, file))
        left = sum(size for _, size, _ in parts)
        for _, size, file in sorted(parts):
            if left <= most:
                break
            file.unlink(missing_ok=True)
            left -= size

    def _compute(
        self,
        engine: Engine,
        modality: str,
        parts: Parts,
        found: Listed,
        todo: Sequence[int],
        on_error: OnError,
        progress: Progress | None,
    ) -> dict[int, InputError]:
        from torch.utils.data import Subset

        reading = engine.model.modality(modality)

        def keep(part: Part) -> None:
            parts.add(part)
            self.computed += len(part.vectors)

        def unchanged(place: int) -> bool:
            value, options = found.source(todo[place])
            if not is_path(value) and not hasattr(value, "stat_key"):
                return True
            try:
                return contents.digest(value, options, reading) == found.digests[todo[place]].tobytes()
            except InputError:
                return False

        with Contents(self.folder) as contents:
            errors = engine(
                modality,
                Subset(found.items, todo),  # type: ignore[arg-type]
                found.digests[todo],
                keep,
                read_options=found.read_options,
                stop_at_error=on_error == "raise",
                unchanged=unchanged,
                progress=(lambda done: progress(modality, done, len(todo))) if progress else None,
            )
        return {todo[place]: error for place, error in errors.items()}


def _agreed(errors: Mapping[int, InputError], on_error: OnError) -> dict[int, InputError]:
    """The errors of all processes by position; all of them stop at the same one."""
    barrier()
    together = dict(sorted((pair for part in from_all([dict(errors)]) for pair in part.items()), key=lambda pair: pair[0]))
    if together and on_error == "raise":
        raise next(iter(together.values()))
    return together


def _share(wanted: np.ndarray, digests: np.ndarray, batch_size: int, among: tuple[int, int]) -> list[int]:
    """Of the `wanted` items [n] those that this process embeds: equal ones once, in whole batches as one process would form."""
    places = np.flatnonzero(wanted)
    _, first = np.unique(digests[places], axis=0, return_index=True)
    todo = places[np.sort(first)].tolist()
    rank, count = among
    batches = [todo[at : at + batch_size] for at in range(0, len(todo), batch_size)]
    return [index for batch in batches[rank::count] for index in batch]

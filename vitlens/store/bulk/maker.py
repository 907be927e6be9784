"""One piece becomes a part: looked at, embedded, written whole, whether this process does it, one of torchrun's, or an actor."""

from __future__ import annotations

import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.errors import InputError
from vitlens.modality import Modality
from vitlens.sources import is_path
from vitlens.space import EmbeddingSpace
from vitlens.store.bulk.pieces import ERRORS, PIECES, Piece, Receipt
from vitlens.store.bulk.staging import chunks, staged, without_copies
from vitlens.store.digests import DIGEST, Contents, stack_digests
from vitlens.store.engine import Engine
from vitlens.store.files import SUCCESS, Column, Content, exact_name, shown_name, write_parquet
from vitlens.store.items import Failure, Item
from vitlens.store.job import Settings
from vitlens.store.parts import Part
from vitlens.store.places import Folder
from vitlens.words import unknown_words

if TYPE_CHECKING:
    from vitlens.model import ViTLens

REMARKS = 3
"""Remarks of readers that a receipt repeats."""
Told = Callable[[str, int], None]
"""(modality, how many more of it were embedded)."""


@dataclass
class Maker:
    """Makes pieces with a model, which is loaded when the first needs it."""

    folder: Folder
    model_name: str
    settings: Settings
    load: Callable[[list[str]], ViTLens]
    expected: Sequence[str] = ()
    """Modalities of which there will be items: their towers are loaded together."""
    _engine: Engine | None = None

    def __call__(self, piece: Piece, told: Told = lambda *_: None) -> tuple[Receipt, bool]:
        """The receipt of a piece, and whether it was made now: one that is there, of the same items and weights, stays.

        Raises:
            VitlensError: what no other attempt would change.
            OSError: a disk, a network or a store fails.
        """
        begun = time.monotonic()
        abouts = {modality: self._for(piece.modalities).about(modality) for modality in piece.modalities}
        weights = {modality: _hash_of(about) for modality, about in abouts.items()}
        known = Receipt.read(self.folder, piece.name)
        if known and known.weights == weights and known.sizes == self._sizes(piece):
            if known.listing == piece.listing:
                return known, False
            if known.content == self._content(piece):
                known = replace(known, listing=piece.listing)
                known.write(self.folder)
                return known, False
        made = _Made(piece)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for modality, items in made.groups.items():
                self._embed(made, modality, items, told)
        self.folder.remove(SUCCESS, f"{PIECES}/{piece.name}.json")
        remarks = list(dict.fromkeys(without_copies(" ".join(str(one.message).split())) for one in said))
        receipt = Receipt(
            piece.number,
            piece.listing,
            made.content(),
            weights,
            {modality: about["weights"] for modality, about in abouts.items()},
            next(((about["space"], about["dim"]) for about in abouts.values()), ("", 0)),
            {modality: len(column) for modality, column in made.vectors.items() if column},
            len(made.failures),
            (self._write_part(made, abouts), self._write_errors(made)),
            round(time.monotonic() - begun, 3),
            tuple(remarks[:REMARKS]),
            len(remarks),
        )
        receipt.write(self.folder)
        return receipt, True

    def prepare(self) -> None:
        """Load the model for the modalities that are expected."""
        if self.expected:
            self._for(self.expected)

    def _for(self, modalities: Sequence[str]) -> Engine:
        """The engine, with the towers of these modalities and of all before."""
        known = self._engine.model.modalities if self._engine else []
        if self._engine is None or not {*modalities} <= {*known}:
            settings = self.settings
            model = self.load(sorted({*known, *modalities, *self.expected}))
            never = float("inf")
            self._engine = Engine(
                model, settings.batch_size, settings.num_workers, settings.dtype, save_every=1 << 40, save_seconds=never
            )
        return self._engine

    def _sizes(self, piece: Piece) -> tuple[int, int]:
        return self.folder.size(f"{piece.name}.parquet"), self.folder.size(f"{ERRORS}/{piece.name}.parquet")

    def _content(self, piece: Piece) -> str:
        """`_Made.content` of a piece that is only looked at."""
        seen = _Made(piece)
        with Contents(None) as contents:
            for modality, items in seen.groups.items():
                reading = self._for([modality]).model.modality(modality)
                for chunk in chunks(items, self.settings.batch_size):
                    with staged(chunk, reading, self._options(modality)) as files:
                        for item, file in zip(chunk, files, strict=True):
                            self._look(seen, item, file, reading, contents)
        return seen.content()

    def _options(self, modality: str) -> Mapping[str, Any]:
        return self.settings.read_options.get(modality, {})

    def _look(self, made: _Made, item: Item, file: Item | InputError, reading: Modality, contents: Contents) -> bytes | None:
        """The digest of an item; None and a failure where it cannot be had."""
        try:
            if isinstance(file, InputError):
                raise file
            made.digests[id(item)] = contents.digest(file.source, {**self._options(item.modality), **item.options}, reading)
        except InputError as error:
            made.failures.append(Failure.of(item.row, item.name, item.modality, error))
        return made.digests.get(id(item))

    def _embed(self, made: _Made, modality: str, items: Sequence[Item], told: Told) -> None:
        engine = self._for([modality])
        reading = engine.model.modality(modality)
        if reading.tower == "text" and (words := unknown_words(reading, (item.source for item in items))):
            warnings.warn(words, stacklevel=2)
        with Contents(None) as contents:
            for chunk in chunks(items, self.settings.batch_size):
                with staged(chunk, reading, self._options(modality)) as files:
                    pairs = zip(chunk, files, strict=True)
                    here = [(item, file) for item, file in pairs if self._look(made, item, file, reading, contents)]
                    self._run(made, engine, modality, here, contents, told)  # type: ignore[arg-type]
                told(modality, len(chunk) - len(here))

    def _run(
        self, made: _Made, engine: Engine, modality: str, pairs: list[tuple[Item, Item]], contents: Contents, told: Told
    ) -> None:
        """Embed items that lie in local files; those that cannot be read are failures."""
        options, reading = self._options(modality), engine.model.modality(modality)
        digests = [made.digests[id(item)] for item, _ in pairs]
        vectors: dict[bytes, np.ndarray] = {}
        counted = 0

        def keep(part: Part) -> None:
            vectors.update(zip((digest.tobytes() for digest in part.digests), part.vectors, strict=True))

        def unchanged(place: int) -> bool:
            file = pairs[place][1]
            if not is_path(file.source) or isinstance(file.source, str):
                return True
            try:
                return contents.digest(file.source, {**options, **file.options}, reading) == digests[place]
            except InputError:
                return False

        def progress(done: int) -> None:
            nonlocal counted
            told(modality, done - counted)
            counted = done

        values = [file.value for _, file in pairs]
        errors = engine(
            modality, values, stack_digests(digests), keep, read_options=options, unchanged=unchanged, progress=progress
        )
        for place, (item, _) in enumerate(pairs):
            if place not in errors:
                made.vectors[modality].append((item, vectors[digests[place]]))
                continue
            failure = Failure.of(item.row, item.name, modality, errors[place])
            made.failures.append(replace(failure, found=without_copies(failure.found)))

    def _write_part(self, made: _Made, abouts: Mapping[str, Mapping[str, Any]]) -> int:
        """The file of what was embedded; returns its size."""
        name = f"{made.piece.name}.parquet"
        if not any(made.vectors.values()) or self._engine is None:
            self.folder.remove(name)
            return 0
        columns = {
            modality: Column(
                [item.name for item, _ in found],
                [item.row for item, _ in found],
                partial(_normalised, [vector for _, vector in found]),
                [made.digests[id(item)] for item, _ in found],
            )
            for modality, found in made.vectors.items()
            if found
        }
        space = self._engine.model.space
        weights = {modality: abouts[modality]["weights"] for modality in columns}
        about = {"vitlens.precision": next(iter(abouts.values()))["precision"]}
        stream = io.BytesIO()
        content = Content(EmbeddingSpace(space.name, space.dim), self.model_name, columns, self.settings.packing, about, weights)
        write_parquet(stream, content)
        self.folder.write(name, stream.getvalue())
        return stream.tell()

    def _write_errors(self, made: _Made) -> int:
        """The table of what was not; returns its size."""
        name = f"{ERRORS}/{made.piece.name}.parquet"
        if not made.failures:
            self.folder.remove(name)
            return 0
        import pyarrow as pa
        import pyarrow.parquet as pq

        failures = sorted(made.failures, key=lambda failure: (failure.row, failure.modality))
        table = {
            "row": pa.array([failure.row for failure in failures], pa.int64()),
            "item": pa.array([shown_name(failure.name) for failure in failures], pa.string()),
            "modality": pa.array([failure.modality for failure in failures], pa.string()),
            "error": pa.array([shown_name(failure.error) for failure in failures], pa.string()),
            "item_bytes": pa.array([exact_name(failure.name) for failure in failures], pa.binary()),
        }
        if not table["item_bytes"].drop_null():
            del table["item_bytes"]
        stream = io.BytesIO()
        pq.write_table(pa.table(table), stream)
        self.folder.write(name, stream.getvalue())
        return stream.tell()


def _hash_of(about: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=DIGEST).hexdigest()


class _Made:
    """What is known of a piece while it is made."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.groups: dict[str, list[Item]] = {}
        for item in piece.items:
            self.groups.setdefault(item.modality, []).append(item)
        self.vectors: dict[str, list[tuple[Item, np.ndarray]]] = {modality: [] for modality in self.groups}
        self.digests: dict[int, bytes] = {}
        """By the identity of the item."""
        self.failures: list[Failure] = [entry for entry in piece.entries if isinstance(entry, Failure)]

    def content(self) -> str:
        """A hash of positions, names and what the items hold; an item that cannot be had holds nothing."""
        hashed = hashlib.blake2b(digest_size=DIGEST)
        for entry in self.piece.entries:
            digest = self.digests.get(id(entry), b"")
            hashed.update(json.dumps([entry.row, entry.name, entry.modality, digest.hex()]).encode() + b"\n")
        return hashed.hexdigest()


def _normalised(vectors: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    import torch
    import torch.nn.functional as F

    yield F.normalize(torch.from_numpy(np.stack(vectors)), dim=-1).numpy()

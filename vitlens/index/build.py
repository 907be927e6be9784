"""What goes into an index: items, embedded through the store, and files that `vitlens embed` wrote. Nothing is embedded twice.

What the index has is known by content and not even looked up in the store; what the store has (an earlier build, a training's
anchors, an evaluation) is not embedded again. A build that was stopped goes on: what was embedded is in the store, what was
committed in the index.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.errors import OptionError
from vitlens.index.database import spawning
from vitlens.index.index import Index
from vitlens.index.measure import Nearest, Recall, recall_of
from vitlens.index.rows import Added, Rows, key_of, local_file, same_space, shown
from vitlens.index.storage import Storage
from vitlens.modality import get_modality, modality_class
from vitlens.store.blobs import RemoteFile
from vitlens.store.engine import Engine, Progress
from vitlens.store.files import StoredEmbeddings, stored_parts
from vitlens.store.items import Failure, Item
from vitlens.store.job import PIECE, normalised
from vitlens.store.places import is_uri
from vitlens.store.store import EmbeddingStore, Listed, default_folder
from vitlens.zoo import find_spec, list_models

LICENCES = ("licence", "license")
"""Columns of a manifest that say under which licence an item is."""


@dataclass(frozen=True)
class Settings:
    """How rows are added; `licence` is of the items that say nothing of theirs."""

    read_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    licence: str | None = None
    cache: Path | None = None
    """Folder of the store; None: the user's cache."""
    twins: bool = False
    replace: bool = False


@dataclass(frozen=True)
class Filled:
    """What became of inputs."""

    added: Added
    failures: tuple[Failure, ...] = ()


def begin(
    path: str, stored: Sequence[Stored], items: Sequence[Item], model: str, kept: Mapping[str, Any]
) -> tuple[Index, Nearest | None]:
    """The index to build: a new one, or one whose build was stopped; and what measures the loss of its storage.

    The space is that of the files of embeddings, or of the model where there are items.

    Raises:
        OptionError: a finished index is there, or one that was begun with other options.
        ModelError: the model is not known.
        SpaceError: the inputs are of several spaces.
    """
    spaces = {f"model {model}": find_spec(model).space} if items else {}
    spaces |= {one.path: one.first.space for one in stored}
    if not spaces:
        raise OptionError("nothing to index: none of the inputs can be read")
    (name, space), *others = spaces.items()
    for other, its in others:
        same_space(its, space, other, name)
    try:
        index = Index.create(path, space, model=model, model_licence=_model_licence(model), **kept)
        index.mark("build", {"finished": False})
    except OptionError:
        if not Index.exists(path):
            raise
        index = Index.open(path)
        if index.marked("build") != {"finished": False}:
            raise
        storage = Storage.of(space.dim, kind=kept["store"], width=kept["width"], keep_full=kept["keep_full"])
        if (index.space, index.card["model"], index.storage) != (space, model, storage):
            raise OptionError(f"{path} was begun with another model or storage: delete the folder to start anew") from None
    return index, Nearest() if index.storage.reduced else None


def finish(index: Index, nearest: Nearest | None) -> Recall | None:
    """End a build; the loss of its storage, where there is one."""
    loss = recall_of(index, nearest, "float32") if nearest is not None and nearest.rows else None
    if loss is not None:
        index.mark("loss", loss.to_dict())
    index.mark("build", {"finished": True})
    return loss


def _model_licence(model: str) -> str:
    return find_spec(model).licence if model in list_models() else ""


@dataclass(frozen=True)
class Stored:
    """A file of embeddings, or a folder of parts, of which one is in memory at a time; the `first` tells the space."""

    path: str
    first: StoredEmbeddings
    rest: Iterator[StoredEmbeddings]

    @classmethod
    def open(cls, path: str) -> Stored:
        """Raises InputError: it is none."""
        parts = stored_parts(path)
        return cls(path, next(parts), parts)

    def parts(self) -> Iterator[StoredEmbeddings]:
        """All of it, once."""
        yield self.first
        yield from self.rest


class Filling:
    """An index that is being filled; `nearest`, where given, is shown every vector that goes in."""

    def __init__(
        self, index: Index, settings: Settings, *, progress: Progress | None = None, nearest: Nearest | None = None
    ) -> None:
        self.index, self.settings, self.progress, self.nearest = index, settings, progress, nearest

    def add_stored(self, given: Stored) -> Filled:
        """Put in what a file of embeddings, or a folder of parts, holds.

        Raises:
            SpaceError: it is of another space, or of fewer values than the index has.
            OptionError: its vectors are kept as bits.
        """
        if given.first.kind == "binary":
            advice = "embed them without --store binary; an index keeps bits itself: vitlens index build --store binary"
            raise OptionError(f"{given.path}: its vectors are kept as bits, too little to score by: {advice}")
        return Filled(sum((self._add_part(part, given.path) for part in given.parts()), Added()))

    def _add_part(self, stored: StoredEmbeddings, path: str) -> Added:
        made = Added()
        for modality, vectors in stored.items():
            names, digests = stored.names[modality], stored.digests[modality]
            wordy = modality_class(modality).tower == "text"
            for at in range(0, len(names), PIECE):
                piece = slice(at, at + PIECE)
                files = [None if wordy else _file_of(name, path) for name in names[piece]]
                rows = Rows(
                    stored.space,
                    vectors[piece].numpy(),
                    [modality] * len(files),
                    names[piece],
                    digests[piece] if digests else None,
                    files,
                    weights=stored.weights,
                    licences=self.settings.licence,
                )
                made += self._add(rows)
                self._report(f"adding {modality}", min(at + PIECE, len(names)), len(names))
        return made

    def add_items(self, items: Sequence[Item], engine: Callable[[], Engine]) -> Filled:
        """Embed items of any modalities and put them in; `engine` is called when something is to be embedded.

        Raises:
            SpaceError: the model is of another space.
        """
        groups: dict[str, list[Item]] = {}
        for item in items:
            groups.setdefault(item.modality, []).append(item)
        store = EmbeddingStore(self.settings.cache or default_folder())
        columns = column_types(items)
        result = Filled(Added())
        for modality, group in groups.items():
            options = self.settings.read_options.get(modality)
            values = [item.value for item in group]
            listed = store.listed(values, get_modality(modality), read_options=options, progress=self.progress)
            one = self._add_listed(store, modality, group, listed, columns, engine)
            result = Filled(result.added + one.added, result.failures + one.failures)
        return result

    def _add_listed(
        self, store: EmbeddingStore, modality: str, items: Sequence[Item], listed: Listed, columns: Columns, engine: Any
    ) -> Filled:
        keys = [
            key_of(modality, digest.tobytes(), shown(item.name) if self.settings.twins else "")
            for digest, item in zip(listed.digests, items, strict=True)
        ]
        good = [place for place in range(len(items)) if place not in listed.errors]
        there = set() if self.settings.replace else self.index.known([keys[place] for place in good])
        known = [place for place in good if keys[place] in there]
        todo = [place for place in good if keys[place] not in there]
        errors = dict(listed.errors)
        made = self._add_known(modality, [items[place] for place in known], [keys[place] for place in known])
        if todo:
            part = Listed(
                [listed.items[place] for place in todo],
                listed.read_options,
                lambda index: listed.source(todo[index]),
                listed.digests[todo],
                {},
            )
            built: Engine = engine()
            self.index.check_space(built.model.space, f"model {built.model.spec.name}")
            with spawning():
                found = store.embed(built, modality, part, on_error="skip", progress=self.progress)
            errors |= {todo[place]: error for place, error in found.errors.items()}
            kept, at = [todo[place] for place in found.kept], 0
            weights = {modality: str(found.parts.about["weights"])}
            for vectors in normalised(found):
                places = kept[at : at + len(vectors)]
                own = [items[place] for place in places]
                digests = [listed.digests[place].tobytes() for place in places]
                made += self._add(self._rows(built, vectors, own, digests, weights, columns))
                at += len(vectors)
                self._report(f"adding {modality}", at, len(kept))
        failures = [Failure.of(items[place].row, items[place].name, modality, errors[place]) for place in sorted(errors)]
        return Filled(made, tuple(failures))

    def _rows(
        self, engine: Engine, vectors: np.ndarray, items: Sequence[Item], digests: list[bytes], weights: Any, columns: Columns
    ) -> Rows:
        own = {name: [cast(item.columns.get(name)) for item in items] for name, cast in columns.items() if name not in LICENCES}
        licences = [_licence(item) or self.settings.licence for item in items]
        return Rows(
            engine.model.space,
            vectors,
            [item.modality for item in items],
            [item.name for item in items],
            digests,
            [_place(item.source) for item in items],
            [item.options for item in items],
            weights,
            licences,
            own,
        )

    def _add(self, rows: Rows) -> Added:
        if self.nearest is not None:
            self.nearest.see(rows.keys(twins=self.settings.twins), rows.vectors, rows.modalities)
        return self.index.add_rows(rows, twins=self.settings.twins, replace=self.settings.replace)

    def _add_known(self, modality: str, items: Sequence[Item], keys: Sequence[str]) -> Added:
        """Nothing to add; but what these files held before goes."""
        places = [
            (key, modality, place, item.options)
            for key, item in zip(keys, items, strict=True)
            if (place := _place(item.source)) is not None
        ]
        return Added(0, len(items), self.index.drop_older(places) if places else 0, tuple(keys))

    def _report(self, what: str, done: int, total: int) -> None:
        if self.progress:
            self.progress(what, done, total)


Columns = dict[str, Callable[[Any], Any]]
"""Name of a user's column -> what makes a cell its value."""


def column_types(items: Sequence[Item]) -> Columns:
    """The columns that a manifest has besides, and how their cells are read: whole numbers, numbers, or texts.

    Cells of .csv are all texts: a column is one of numbers where every cell that is filled is one.
    """
    names = list(dict.fromkeys(name for item in items for name in item.columns))
    return {name: _reading(name, items) for name in names}


def _reading(name: str, items: Sequence[Item]) -> Callable[[Any], Any]:
    cells = [cell for item in items if (cell := item.columns.get(name)) not in (None, "")]
    if cells and all(isinstance(cell, str) for cell in cells):
        for kind in (int, float):
            if all(_is(kind, cell) for cell in cells):
                return lambda cell: None if cell in (None, "") else kind(cell)
        return lambda cell: None if cell is None else str(cell)
    if any(isinstance(cell, float) for cell in cells) and all(isinstance(cell, int | float) for cell in cells):
        return lambda cell: None if cell in (None, "") else float(cell)
    return lambda cell: None if cell == "" else cell


def _is(kind: type, cell: str) -> bool:
    try:
        kind(cell)
    except ValueError:
        return False
    return cell == cell.strip() and not (len(cell) > 1 and cell[0] == "0" and cell.isdigit())  # 007 is a name


def _licence(item: Item) -> str | None:
    return next((str(item.columns[name]) for name in LICENCES if item.columns.get(name)), None)


def _place(source: Any) -> str | None:
    """Where a file is: a path or an address; None for what is none."""
    return source.uri if isinstance(source, RemoteFile) else local_file(source) if isinstance(source, Path) else None


def _file_of(name: str, stored: str) -> str | None:
    """The file that an item of a file of embeddings is, where it still lies where its name says, seen from here or from there."""
    if is_uri(name):
        return name
    for folder in (Path(), Path(stored).parent):
        if os.path.lexists(folder / name):
            return local_file(folder / name)
    return None

"""Index: embeddings of any sensor on disk, found again by any other.

    index = Index.create("things.index", model.space, model="vitlens-l")
    index.add(vectors, model.space, modality="audio", sources=["dog.flac", "rain.flac"], licences="CC0")
    answer = index.search([Term(query, "text")], model.space, k=5, where="licence = 'CC0'")
    for hit in answer.hits:
        print(hit.score, hit.modality, hit.source)

`add`, `delete` and `compact` return when what they did is on the disk for good. One process writes at a time (others wait for
it); any number read meanwhile, and see every write from their next call on. An Index may be used by several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.index import maintenance
from vitlens.index.database import Database, both, quoted
from vitlens.index.info import IndexInfo, look
from vitlens.index.query import CALIBRATIONS, Answer, Cone, Query, Term, calibration_in_words
from vitlens.index.rows import FIXED, Added, Rows, arrow_type, check_columns, same_space, schema_of, shown, written_options
from vitlens.index.search import Wanted, find
from vitlens.index.storage import Storage
from vitlens.space import EmbeddingSpace

FORMAT = 1
EXACT_BELOW = 50_000
"""Rows below which every one is looked at; from there on a structure of near neighbours (IVF_HNSW_SQ) is built."""
PIECE = 8192
"""Rows of one commit."""
ALL_KEYS = 1000
"""So many keys are looked up; for more all are read."""


class Index:
    """An index that is open. `Index.create` and `Index.open` give one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = threading.RLock()
        self._cones: tuple[int, dict[str, Cone]] = (-1, {})
        self._seen: tuple[int, list[str], bool] = (-1, [], False)
        self._in_bulk = 0
        self.card = database.card()
        """What it is: space, model, licence of the model, storage."""
        self.space = EmbeddingSpace(self.card["space"], self.card["dim"])
        self.storage = Storage(**self.card["storage"])

    @classmethod
    def create(
        cls,
        path: str | Path,
        space: EmbeddingSpace,
        *,
        model: str = "",
        model_licence: str = "",
        store: str = "float32",
        width: int | None = None,
        keep_full: bool = False,
        exact_below: int = EXACT_BELOW,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> Index:
        """Make an empty index in a new folder, or behind an address (s3://bucket/name).

        `store` (float32, float16, int8, binary) and `width` say how vectors are kept; `keep_full` keeps the whole float32 vector
        besides, by which candidates are scored then. `columns` are examples of values of the users' own columns; others may come
        with `add`.

        Raises:
            OptionError: there is an index already, or options that are none.
            MissingDependencyError: lancedb is not installed.
        """
        storage = Storage.of(space.dim, kind=store, width=width, keep_full=keep_full)
        checks.whole("exact_below", exact_below, least=1)
        check_columns(columns or {})
        facts = {"format": FORMAT, "space": space.name, "dim": space.dim, "model": model, "model_licence": model_licence}
        facts |= {"exact_below": exact_below, "storage": storage.to_dict()}
        kinds = {name: arrow_type(name, values) for name, values in (columns or {}).items()}
        database = Database(path)
        with database.writing():
            database.create(schema_of(storage, kinds, facts))
        return cls(database)

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Open an index.

        Raises:
            InputError: there is none.
            MissingDependencyError: lancedb is not installed.
        """
        return cls(Database(path))

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is an index."""
        return Database(path).exists()

    @property
    def path(self) -> str:
        """Its folder or address."""
        return self._database.path

    @property
    def columns(self) -> list[str]:
        """Names of the columns that a filter may use."""
        return self._database.columns

    def __len__(self) -> int:
        return int(self._database.reading(lambda items: items.count_rows()))

    def cones(self) -> dict[str, Cone]:
        """Where each modality's embeddings crowd; its keys are the modalities that there are."""
        with self._thread:
            version = self._database.table("about").version
            if version != self._cones[0]:
                self._cones = (version, maintenance.read_cones(self._database))
            return self._cones[1]

    def add(
        self,
        vectors: Any,
        space: EmbeddingSpace,
        *,
        modality: str | Sequence[str],
        sources: Sequence[str],
        digests: Sequence[bytes] | None = None,
        files: Sequence[str | None] | None = None,
        weights: Mapping[str, str] | None = None,
        licences: Sequence[str | None] | str | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        twins: bool = False,
        replace: bool = False,
    ) -> Added:
        """Add embeddings [n, E]; see `Rows` for what stands beside them. On the disk for good when it returns.

        A row of the same modality and content that is there already stays as it is; with `replace` its columns are written anew.
        With `twins` the same content is kept once for every name that it has. A row of the same file (and read options) with
        another content is replaced.

        Raises:
            SpaceError: embeddings of another space.
            OptionError: values that do not fit the index.
        """
        array = np.asarray(vectors, np.float32)
        modalities = [modality] * len(array) if isinstance(modality, str) else list(modality)
        rows = Rows(space, array, modalities, sources, digests, files, None, weights or {}, licences, columns or {})
        return self.add_rows(rows, twins=twins, replace=replace)

    def add_rows(self, rows: Rows, *, twins: bool = False, replace: bool = False) -> Added:
        """As `add`."""
        rows.check(self.space, self.path)
        if not len(rows):
            return Added()
        with self._thread, self._database.writing():
            self._prepare(rows)
            table = rows.to_arrow(self._database.items.schema, self.storage, twins=twins)
            made = sum((self._commit(table.slice(at, PIECE), replace) for at in range(0, len(rows), PIECE)), Added())
            given = table.select(["key", "modality", "file", "options"]).to_pylist()
            replaced = self._drop_older([tuple(row.values()) for row in given if row["file"]])
            self._tidy()
            return Added(made.added, made.known, replaced, made.keys)

    def _prepare(self, rows: Rows) -> None:
        """Columns and modalities that are new; a modality is known before its first row is there, so that no search misses it."""
        import pyarrow as pa

        schema = self._database.items.schema
        new = {name: arrow_type(name, values) for name, values in rows.columns.items() if name not in schema.names}
        if new:
            self._database.items.add_columns(pa.schema(list(new.items())))
        known = self.cones()
        names = sorted({*rows.modalities} - {*known})
        if names:
            given = np.array(rows.modalities)
            fresh = {name: Cone.of(0, self.storage.to_scored(rows.vectors[given == name])) for name in names}
            maintenance.write_cones(self._database, {**known, **fresh})

    def _commit(self, table: Any, replace: bool) -> Added:
        """One commit; of rows with the same key the first is taken."""
        keys = table["key"].to_pylist()
        first = list({key: place for place, key in reversed(list(enumerate(keys)))}.values())
        merge = self._database.items.merge_insert("key").when_not_matched_insert_all()
        result = (merge.when_matched_update_all() if replace else merge).execute(table.take(sorted(first)))
        return Added(int(result.num_inserted_rows), len(keys) - int(result.num_inserted_rows), 0, tuple(keys))

    def known(self, keys: Sequence[str]) -> set[str]:
        """Which of these rows there are (`vitlens.index.rows.key_of`)."""
        found: set[str] = set()
        many = len(keys) > ALL_KEYS
        for at in range(0, len(keys), ALL_KEYS):
            only = None if many else f"key IN {quoted(keys[at : at + ALL_KEYS])}"

            def ask(items: Any, only: str | None = only) -> Any:
                asked = items.search().select(["key"]).limit(1 << 30)
                return (asked.where(only) if only else asked).to_arrow()

            found |= set(self._database.reading(ask)["key"].to_pylist())
            if many:
                break
        return found.intersection(keys)

    def check_space(self, space: EmbeddingSpace, what: str) -> None:
        """Raises SpaceError, naming both, where `what` is of another space."""
        same_space(space, self.space, what, self.path)

    def drop_older(self, places: Sequence[tuple[str, str, str, Mapping[str, Any]]]) -> int:
        """Delete what files held before; each place is a row's key now, its modality, its file and read options."""
        given = [(key, modality, shown(file), written_options(options)) for key, modality, file, options in places]
        with self._thread, self._database.writing():
            return self._drop_older(given)

    def _drop_older(self, given: Sequence[tuple[str, str, str, str]]) -> int:
        """Delete rows of the same files, read the same way, with another content."""
        keys, places = {place[0] for place in given}, {place[1:] for place in given}
        files = sorted({place[2] for place in given})
        stale: list[str] = []
        for at in range(0, len(files), 1000):
            only = f"file IN {quoted(files[at : at + 1000])}"
            found = self._database.items.search().where(only).select(["key", "modality", "file", "options"]).limit(1 << 30)
            rows = found.to_arrow().to_pylist()
            stale += [r["key"] for r in rows if r["key"] not in keys and (r["modality"], r["file"], r["options"]) in places]
        return self._delete(f"key IN {quoted(stale)}") if stale else 0

    def delete(
        self, *, keys: Sequence[str] = (), sources: Sequence[str] = (), where: str | None = None, dry_run: bool = False
    ) -> int:
        """Delete rows by key, by source (a name, or the path of a file) and by filter; all that is given must hold. Their number.

        Raises:
            OptionError: nothing is given, or a filter that cannot be used.
        """
        if not (keys or sources or where):
            raise OptionError("say which rows are to be deleted: keys, sources or a filter")
        names = [*sources, *(str(Path(source).absolute()) for source in sources)]
        by_source = f"source IN {quoted(sources)} OR file IN {quoted(names)}" if sources else None
        only = both(f"key IN {quoted(keys)}" if keys else None, by_source, where)
        count = int(self._database.reading(lambda items: items.count_rows(only)))
        if dry_run or not count:
            return count
        with self._thread, self._database.writing():
            count = self._delete(str(only))
            self._tidy()
        return count

    def _delete(self, only: str) -> int:
        return int(self._database.items.delete(only).num_deleted_rows)

    def search(
        self,
        query: Sequence[Term] | Term,
        space: EmbeddingSpace,
        *,
        k: int = 10,
        where: str | None = None,
        modalities: Sequence[str] = (),
        calibrate: str = "center",
        exact: bool = False,
    ) -> Answer:
        """The `k` rows that fit a query best: terms of any modality, weighted.

        `where` is a filter in SQL over `columns`; `modalities` are those of the rows. `calibrate`: "center" or "none"
        (`vitlens.index.query` says what that means). `exact` looks at every row.

        Raises:
            SpaceError: a query of another space.
            OptionError: a filter that cannot be used (it says which columns there are), or another option.
        """
        begun = time.perf_counter()
        same_space(space, self.space, "the query", self.path)
        checks.whole("k", k, least=1)
        checks.one_of("calibrate", calibrate, CALIBRATIONS)
        terms = [query] if isinstance(query, Term) else list(query)
        cones = self.cones()
        asked = Query.of(terms, self.storage, cones)
        wanted = Wanted(k, where, modalities, calibrate == "center", exact)
        own, indexed = self._newest()
        hits = find(self._database, self.storage, cones, asked, wanted, own)
        words = calibration_in_words(calibrate, terms, cones)
        return Answer(tuple(hits), words, exact or not indexed, time.perf_counter() - begun)

    def row(self, key: str) -> dict[str, Any] | None:
        """What is known of the row with a key, without its vector; None where there is none."""
        only = f"key IN {quoted([key])}"
        found = self._database.reading(lambda items: items.search().where(only).select(self.columns).limit(1).to_arrow())
        return next(iter(found.to_pylist()), None)

    @property
    def indexed(self) -> bool:
        """Whether there is a structure of near neighbours; without it a search looks at every row."""
        return self._newest()[1]

    def _newest(self) -> tuple[list[str], bool]:
        """The users' own columns, and whether there is a structure of near neighbours, in the newest version."""
        items = self._database.items
        version = items.version
        if version != self._seen[0]:
            there = [config.name for config in items.list_indices()]
            own = [name for name in self.columns if name not in FIXED]
            self._seen = (version, own, f"{self.storage.searched}_idx" in there)
        return self._seen[1:]

    def only(self, modality: str, where: str | None = None) -> str:
        """A filter for the rows of a modality, and what else they must be."""
        return str(both(f"modality IN {quoted([modality])}", where))

    def count(self, modality: str, where: str | None = None) -> int:
        """How many rows of a modality there are, or pass a filter."""
        only = self.only(modality, where)
        return int(self._database.reading(lambda items: items.count_rows(only)))

    def take(self, places: Sequence[int], columns: Sequence[str]) -> Any:
        """Columns of the rows at these places of the table (Arrow)."""
        return self._database.reading(lambda items: items.take_offsets(list(places)).select(list(columns)).to_arrow())

    def batches(self, columns: Sequence[str], size: int, where: str | None = None) -> Iterator[Any]:
        """Columns of all rows, or of those that pass a filter, in the order of the table, `size` at a time (Arrow)."""
        dataset = self._database.items.to_lance()
        yield from dataset.scanner(columns=list(columns), filter=where, batch_size=size, scan_in_order=True).to_batches()

    def mark(self, name: str, value: Any) -> None:
        """Keep a fact of the index (JSON types) under a name."""
        with self._thread, self._database.writing():
            self._database.write_about(name, value)

    def marked(self, name: str) -> Any:
        """A fact that was kept; None where there is none."""
        return self._database.about(name)

    def measured_loss(self) -> dict[str, Any] | None:
        """What its storage cost when it was built (`vitlens.index.measure.Recall`)."""
        return self.marked("loss")

    def info(self) -> IndexInfo:
        """How the index is doing."""
        return look(self._database, self.storage, list(self.cones()), self.card)

    def compact(self) -> maintenance.Tidied:
        """Do all maintenance now: fragments, old versions, the search structures, means."""
        with self._thread, self._database.writing():
            return self._tidy(anyway=True)

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """A block of many writes: the search structures are made or renewed once, at its end, however it ends."""
        self._in_bulk += 1
        try:
            yield
        finally:
            self._in_bulk -= 1
            with self._thread, self._database.writing():
                self._tidy()

    def _tidy(self, *, anyway: bool = False) -> maintenance.Tidied:
        return maintenance.tidy(
            self._database, self.storage, self.card["exact_below"], anyway=anyway, structures=not self._in_bulk
        )

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.index import maintenance
from vitlens.index.database import Database, both, quoted
from vitlens.index.info import IndexInfo, look
from vitlens.index.query import CALIBRATIONS, Answer, Cone, Query, Term, calibration_in_words
from vitlens.index.rows import Added, Rows, arrow_type, check_columns, same_space, schema_of
from vitlens.index.search import Wanted, find
from vitlens.index.storage import Storage
from vitlens.space import EmbeddingSpace

FORMAT = 1
EXACT_BELOW = 50_000
"""Rows below which every one is looked at; from there on a structure of near neighbours (IVF_HNSW_SQ) is built."""
PIECE = 8192
"""Rows of one commit."""


class Index:
    """An index that is open. `Index.create` and `Index.open` give one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = threading.RLock()
        self._cones: tuple[int, dict[str, Cone]] = (-1, {})
        self._indexed = (-1, False)
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
            replaced = self._drop_older(table)
            maintenance.tidy(self._database, self.storage, self.card["exact_below"])
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

    def _drop_older(self, table: Any) -> int:
        """Delete rows of the same files, read the same way, with another content."""
        given = [row for row in table.select(["key", "modality", "file", "options"]).to_pylist() if row["file"]]
        keys, places = {row["key"] for row in given}, {(row["modality"], row["file"], row["options"]) for row in given}
        files = sorted({row["file"] for row in given})
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
            maintenance.tidy(self._database, self.storage, self.card["exact_below"])
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
        hits = find(self._database, self.storage, cones, asked, wanted)
        words = calibration_in_words(calibrate, terms, cones)
        return Answer(tuple(hits), words, exact or not self.indexed, time.perf_counter() - begun)

    def row(self, key: str) -> dict[str, Any] | None:
        """What is known of the row with a key, without its vector; None where there is none."""
        only = f"key IN {quoted([key])}"
        found = self._database.reading(lambda items: items.search().where(only).select(self.columns).limit(1).to_arrow())
        return next(iter(found.to_pylist()), None)

    @property
    def indexed(self) -> bool:
        """Whether there is a structure of near neighbours; without it a search looks at every row."""
        version = self._database.items.version
        if version != self._indexed[0]:
            names = [config.name for config in self._database.items.list_indices()]
            self._indexed = (version, f"{self.storage.searched}_idx" in names)
        return self._indexed[1]

    def info(self) -> IndexInfo:
        """How the index is doing."""
        return look(self._database, self.storage, list(self.cones()), self.card)

    def compact(self) -> maintenance.Tidied:
        """Do all maintenance now: fragments, old versions, the search structures, means."""
        with self._thread, self._database.writing():
            return maintenance.tidy(self._database, self.storage, self.card["exact_below"], anyway=True)

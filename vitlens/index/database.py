"""LanceDB under an index: two tables in a folder or behind an object-store address, one writer at a time, readers at any time.

    items.lance    a row per embedding; what the index is stands in its schema's metadata
    about.lance    what changes with the rows, by name, as JSON: where each modality's embeddings crowd, measured losses

Every write is committed, and on the disk, when its call returns: `kill -9` loses nothing that was acknowledged. LanceDB has
threads of its own, which a fork does not survive: processes that read files for us are spawned.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from vitlens.disk import lock_folder
from vitlens.errors import InputError, MissingDependencyError, OptionError

T = TypeVar("T")
ITEMS, ABOUT = "items", "about"
ACCEPTED = "a folder (or an address such as s3://bucket/name) that `vitlens index build` or Index.create made"
PATIENCE = 60.0
"""Seconds that a writer waits for another one."""
GONE = ("not found", "no such file", "does not exist")
"""What the database says of a version that was cleaned up under a reader."""


def load_lancedb() -> Any:
    """Import lancedb.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import lance  # noqa: F401  # pylance: compaction and versions go through it
        import lancedb
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"the index needs lancedb and pylance ({error}): pip install 'vitlens[index]'") from error
    return lancedb


@contextmanager
def spawning() -> Iterator[None]:
    """A block in which processes of this one are spawned where they would be forked."""
    before = multiprocessing.get_start_method(allow_none=True)
    if before in (None, "fork"):
        multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


class Database:
    """The tables of one index."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.remote = "://" in self.path
        self._connection: Any = None
        self._tables: dict[str, Any] = {}

    @property
    def connection(self) -> Any:
        """The connection; every read sees the newest version."""
        if self._connection is None:
            self._connection = load_lancedb().connect(self.path, read_consistency_interval=timedelta(0))
        return self._connection

    def exists(self) -> bool:
        """Whether there is an index."""
        if not self.remote:
            return (Path(self.path) / f"{ITEMS}.lance").is_dir()
        try:
            self.table(ITEMS)
        except InputError:
            return False
        return True

    def create(self, schema: Any) -> None:
        """Make the tables.

        Raises:
            OptionError: there is an index already, a file, or a folder with other things in it.
        """
        import pyarrow as pa

        if self.exists():
            raise OptionError(f"{self.path} is an index already: add to it with `vitlens index add`, or choose another name")
        folder = Path(self.path)
        if not self.remote and folder.exists():
            if not folder.is_dir():
                raise OptionError(f"{self.path} is a file: name a folder for the index")
            strange = sorted(item.name for item in folder.iterdir() if item.name not in ("lock", f"{ABOUT}.lance"))
            if strange:
                raise OptionError(f"{self.path} has other things in it ({', '.join(strange[:3])}): name a folder of its own")
        about = pa.schema([("name", pa.string()), ("value", pa.string())])
        self._tables[ABOUT] = self.connection.create_table(ABOUT, schema=about, exist_ok=True)
        self._tables[ITEMS] = self.connection.create_table(ITEMS, schema=schema)

    def table(self, name: str) -> Any:
        """A table.

        Raises:
            InputError: there is none: this is no index.
        """
        if name not in self._tables:
            folder = Path(self.path)
            if not self.remote and not folder.is_dir():
                raise InputError(self.path, "a file" if folder.exists() else "no such folder", ACCEPTED)
            if not self.remote and not (folder / f"{ITEMS}.lance").is_dir():
                raise InputError(self.path, "a folder without an index in it", ACCEPTED)
            try:
                self._tables[name] = self.connection.open_table(name)
            except MissingDependencyError:
                raise
            except Exception as error:  # ValueError, RuntimeError, OSError: each storage has its own
                raise InputError(self.path, f"no index there ({' '.join(str(error).split())[:200]})", ACCEPTED) from error
        return self._tables[name]

    @property
    def items(self) -> Any:
        """The table of embeddings."""
        return self.table(ITEMS)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that a filter may use."""
        return [field.name for field in self.items.schema if field.name not in ("vector", "bits", "full")]

    def card(self) -> dict[str, Any]:
        """What the index is.

        Raises:
            InputError: this is no index of ours.
        """
        found = (self.items.schema.metadata or {}).get(b"vitlens")
        if found is None:
            raise InputError(self.path, "a LanceDB table that vitlens did not write", ACCEPTED)
        return dict(json.loads(found))

    def reading(self, ask: Callable[[Any], T]) -> T:
        """`ask(items)`, once more where a writer cleaned up the version that was being read.

        Raises:
            OptionError: a filter that cannot be understood; it says which columns there are.
        """
        for left in (2, 1, 0):
            try:
                return ask(self.items)
            except (ValueError, RuntimeError, OSError) as error:
                said = " ".join(str(error).split())
                if any(word in said for word in ("No field named", "parsing statement", "sql parser", "Schema error")):
                    raise OptionError(
                        f"the filter cannot be used ({_short(said)}); columns: {', '.join(self.columns)}"
                    ) from error
                if not left or not any(word in said.lower() for word in GONE):
                    raise
                self.items.checkout_latest()
        raise AssertionError("not reached")

    def about(self, name: str) -> Any:
        """What is written under a name; None where nothing is."""
        table = self.table(ABOUT)
        found = table.search().where(f"name = '{name}'").limit(1).to_list()
        return json.loads(found[0]["value"]) if found else None

    def write_about(self, name: str, value: Any) -> None:
        """Write something down under a name, in place of what was there."""
        import pyarrow as pa

        row = pa.table({"name": [name], "value": [json.dumps(value)]})
        merge = self.table(ABOUT).merge_insert("name")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(row)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The right to write, once no other process has it. (Behind an address nobody holds it: one writer is yours to keep.)

        Raises:
            OptionError: another process has been writing for a minute.
        """
        if self.remote:
            yield
            return
        until = time.monotonic() + PATIENCE
        while True:
            try:
                lock = lock_folder(Path(self.path), holder="another process writes to this index now")
                break
            except OptionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        try:
            yield
        finally:
            lock.close()


def quoted(texts: Any) -> str:
    """Texts as a list in SQL."""
    return "(" + ", ".join("'" + str(text).replace("'", "''") + "'" for text in texts) + ")"


def both(*filters: str | None) -> str | None:
    """Filters that must all hold."""
    given = [f"({one})" for one in filters if one]
    return " AND ".join(given) or None


def _short(said: str) -> str:
    for mark in ("Schema error: ", "sql parser error: "):
        said = said.rpartition(mark)[2] if mark in said else said
    return said.partition(" Valid fields are")[0].strip(" .)")[:160]

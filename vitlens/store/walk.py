"""The files of folders and patterns, local or on an object store: sorted by their whole path, one after the other.

However many there are, memory stays flat: names are sorted folder by folder, and where one folder has very many, in runs on disk.
"""

from __future__ import annotations

import glob
import heapq
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from vitlens.errors import InputError
from vitlens.store.blobs import RemoteFile, remote_file
from vitlens.store.files import JOB_CARD, holds_embeddings
from vitlens.store.places import is_uri, located, reaching, talking

RUN = 100_000
"""Names that are sorted in memory."""


def files_of(given: str) -> Iterator[str | RemoteFile] | None:
    """The files of a folder or pattern; None for what names one file.

    Files that nobody named and that are earlier outputs of ours, or hidden in a folder, are left out.

    Raises:
        InputError: there are none.
    """
    if is_uri(given):
        found = _remote(given)
    elif os.path.isdir(given):
        found = walk(given)
    elif glob.has_magic(given) and not os.path.lexists(given):
        matching = (path for path in glob.iglob(given, recursive=True) if not os.path.isdir(path))
        found = _without_repeats(sorted_stream(matching))
    else:
        found = None
    return None if found is None else _at_least_one(given, (one for one in found if not (isinstance(one, str) and _ours(one))))


def _at_least_one(given: str, found: Iterator[str | RemoteFile]) -> Iterator[str | RemoteFile]:
    first = next(found, None)
    if first is None:
        raise InputError(given, "no files there", "files, folders, or quoted patterns such as 'sounds/**/*.flac'")
    yield first
    yield from found


def walk(folder: str) -> Iterator[str]:
    """The files in a local folder and below it, without hidden ones and folders that `vitlens embed` writes.

    A folder that may not be looked into comes as itself.
    """
    if os.path.exists(os.path.join(folder, JOB_CARD)):
        return
    try:
        with os.scandir(folder) as entries:
            shown = (one for one in entries if not one.name.startswith("."))
            names = sorted_stream(one.name + "/" * one.is_dir() for one in shown if not _linked_folder(one))
    except OSError:
        yield folder
        return
    for name in names:
        if name.endswith("/"):
            yield from walk(os.path.join(folder, name[:-1]))
        else:
            yield os.path.join(folder, name)


def _linked_folder(entry: os.DirEntry[str]) -> bool:
    """A link to a folder is not followed: it may lead back."""
    return entry.is_symlink() and entry.is_dir()


def _ours(path: str) -> bool:
    """Whether a file nobody named is an earlier output: stored embeddings, or a part of an unfinished job."""
    return (".partial" in path and ".partial" in (part[-8:] for part in Path(path).parts)) or holds_embeddings(path)


def _remote(given: str) -> Iterator[str | RemoteFile] | None:
    system, inside = located(given)
    with reaching(given):
        if glob.has_magic(inside):
            found = system.glob(inside, detail=True)
            files = sorted(path for path, info in found.items() if info["type"] == "file")
            return (remote_file(system.unstrip_protocol(path), found[path]) for path in files)
        if not given.endswith("/") and not system.isdir(inside):
            return None
    return _remote_walk(system, inside)


def _remote_walk(system: Any, inside: str) -> Iterator[RemoteFile]:
    """The objects below a prefix, one folder's listing at a time."""
    here = inside.rstrip("/")
    with talking(inside):
        found = {one["name"].rstrip("/"): one for one in system.ls(here, detail=True)}
        system.invalidate_cache()
    names = {path.rpartition("/")[2] + "/" * (one["type"] == "directory"): path for path, one in found.items() if path != here}
    if JOB_CARD in names:
        return
    for name in sorted(names):
        if name.startswith("."):
            continue
        if name.endswith("/"):
            yield from _remote_walk(system, names[name])
        else:
            yield remote_file(system.unstrip_protocol(names[name]), found[names[name]])


def sorted_stream(names: Iterable[str], run: int = RUN) -> Iterator[str]:
    """The names in order; what is more than one `run` is sorted in runs on disk."""
    names = iter(names)
    first = sorted(islice(names, run))
    if len(first) < run:
        return iter(first)
    runs = [_on_disk(first)]
    while more := sorted(islice(names, run)):
        runs.append(_on_disk(more))
    return heapq.merge(*map(_from_disk, runs))


def _on_disk(names: list[str]) -> IO[bytes]:
    stream = tempfile.TemporaryFile()  # noqa: SIM115 - it is read later, and gone when nobody has it any more
    stream.writelines(os.fsencode(name) + b"\0" for name in names)
    return stream


def _from_disk(stream: IO[bytes]) -> Iterator[str]:
    stream.seek(0)
    rest = b""
    while block := stream.read(1 << 16):
        *names, rest = (rest + block).split(b"\0")
        yield from map(os.fsdecode, names)


def _without_repeats(names: Iterable[str]) -> Iterator[str]:
    last = None
    for name in names:
        if name != last:
            yield name
        last = name


class Seen:
    """Which names came already; they are kept on disk."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file of its own
        self._database.execute("CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, name: str) -> bool:
        """Whether it is new."""
        found = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (os.fsencode(name),))
        return bool(found.rowcount)

"""What many writers need of a disk: files that appear whole or not at all, and folders that one process holds."""

from __future__ import annotations

import csv
import errno
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vitlens.errors import OptionError

_FULL = re.compile(r"\(os error (\d+)\)|inline_container|PytorchStreamWriter|^System error")
"""What safetensors, torch and libsndfile say of a disk that takes no more, each with an error of its own."""


@contextmanager
def atomic(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A temporary path (in `folder`, default beside `path`) that becomes `path`, on disk for good, when the block ends well.

    Raises:
        OSError: what the block or the disk raises; it names `path`, also where a library did not say which file it wrote.
    """
    part = (folder or path.parent) / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part"
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    except Exception as error:
        if (found := _FULL.search(str(error))) is None:
            raise
        number = int(found[1] or errno.EIO)
        said = os.strerror(number) if found[1] else "it cannot be written: is the disk full?"
        raise OSError(number, said, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
    if os.name == "posix":
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Path | None:
    """Write rows under their `columns` (default: those of the first, which all share), whole or not at all.

    Names of files that are no UTF-8 keep their bytes. Without rows there is no file, and an old one is removed.
    """
    if not rows:
        path.unlink(missing_ok=True)
        return None
    with atomic(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns or rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def output_file(
    what: str, path: Path, suffixes: Iterable[str], *, inputs: Iterable[str | os.PathLike[str]] = (), overwrite: bool = True
) -> Path:
    """`path`, once a file can be written there; `what` says what it is, such as "output".

    Raises:
        OptionError: none of the `suffixes`, a folder, one of the `inputs` (it would be lost), or there already (without
            `overwrite`).
    """
    known = list(suffixes)
    if path.suffix.lower().lstrip(".") not in known:
        types = ", ".join(f".{suffix}" for suffix in known)
        raise OptionError(f"{what} {path}: the type must be {types}, found {path.suffix or 'none'}")
    if path.is_dir():
        raise OptionError(f"{what} {path}: a folder; give a file name")
    if path.exists() and any(os.path.exists(given) and os.path.samefile(given, path) for given in inputs):
        raise OptionError(f"{what} {path}: this is one of the inputs; choose another name")
    if path.exists() and not overwrite:
        raise OptionError(f"{what} {path} exists: choose another name, or --overwrite it")
    return path


def output_folder(what: str, path: Path) -> Path:
    """`path`, once it may become the folder of `what`, such as "the demo".

    Raises:
        OptionError: a file is there.
    """
    if path.exists() and not path.is_dir():
        raise OptionError(f"{path} is a file: name a folder for {what}")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all; bytes of a name that are no UTF-8 stand as JSON escapes them (`\\udce9`)."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def ignore_runs(output: Path) -> None:
    """Make runs/ for an `output` in it, and let git ignore it; one that is there stays as it is."""
    runs = Path("runs")
    if output.parts[:1] == runs.parts and not runs.exists():
        runs.mkdir(exist_ok=True)
        (runs / ".gitignore").write_text("*\n", encoding="utf-8")


def lock_folder(folder: Path, *, holder: str) -> IO[str]:
    """A lock on a folder (made if it is not there) that the system drops with the process, however it ends.

    `holder` says who else may have it.

    Raises:
        OptionError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: two processes at once are not noticed there
        pass
    except OSError as error:
        lock.close()
        raise OptionError(f"{folder} is in use: {holder}") from error
    return lock

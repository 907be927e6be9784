"""Folders and files on a local disk or an object store: `out/`, `s3://bucket/out`, `gs://...`, `memory://...` (through fsspec).

What is written appears whole or not at all: on a local disk it is written aside and renamed, an object store shows an object when
its last byte has come.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

from vitlens.disk import atomic
from vitlens.errors import InputError, MissingDependencyError, OptionError, VitlensError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # one letter is a drive of Windows


def is_uri(text: Any) -> bool:
    """Whether this names something on an object store (`file://` is the local disk, by another name)."""
    return isinstance(text, str) and bool(_SCHEME.match(text))


@cache
def filesystem(scheme: str) -> Any:
    """fsspec's file system of a scheme (`s3`).

    Raises:
        MissingDependencyError: fsspec, or the package that it needs for this scheme, is not installed.
        OptionError: a scheme that it does not know.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{scheme}:// is read through fsspec: pip install 'vitlens[scale]'") from error
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        packages = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
        advice = f"pip install {packages[scheme]}" if scheme in packages else str(error)
        raise MissingDependencyError(f"{scheme}:// needs one more package: {advice}") from error
    except ValueError as error:
        raise OptionError(f"{scheme}:// is no address that fsspec knows ({error}): s3://, gs://, az:// and others are") from error


def located(uri: str) -> tuple[Any, str]:
    """(file system, path in it) of an address."""
    system = filesystem(uri.partition("://")[0].lower())
    return system, cast(str, system._strip_protocol(uri))


@contextmanager
def talking(where: str) -> Iterator[None]:
    """Whatever a store's library raises becomes an OSError that names the address: no credentials, no such host, a timeout.

    Raises:
        OSError: that.
    """
    try:
        yield
    except (OSError, VitlensError):
        raise
    except Exception as error:
        raise OSError(f"{where}: {type(error).__name__}: {' '.join(str(error).split())}") from error


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """What is wrong with this one address becomes an InputError; a network or a store that fails is an OSError.

    Raises:
        InputError: nothing there, or nothing that we may read.
        OSError: as `talking`.
    """
    try:
        with talking(uri):
            yield
    except FileNotFoundError as error:
        raise InputError(uri, "no such file", "a readable file") from error
    except PermissionError as error:
        reason = error.strerror or " ".join(str(error).split()) or "permission denied"
        raise InputError(uri, f"cannot be opened ({reason})", "a readable file") from error


@contextmanager
def opened(path: str | Path) -> Iterator[IO[bytes]]:
    """A local or remote file to read from, at any position.

    Raises:
        InputError: a remote one that is not there or may not be read.
    """
    if not is_uri(path):
        with Path(path).open("rb") as stream:
            yield stream
        return
    system, inside = located(str(path))
    with reaching(str(path)), system.open(inside, "rb") as stream:
        yield stream


class Folder:
    """A folder to write results to."""

    def __init__(self, name: str | os.PathLike[str]) -> None:
        self.name = os.fspath(name).rstrip("/") or "/"
        self.remote = is_uri(self.name)
        if self.name.lower().startswith("file://"):
            self.name, self.remote = self.name[len("file://") :], False
        self._system: Any = None
        self._inside = self.name
        if self.remote:
            self._system, self._inside = located(self.name)

    def __str__(self) -> str:
        return self.name

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, whole.

        Raises:
            OSError: the disk or the store fails.
        """
        path = f"{self._inside}/{name}"
        if self.remote:
            with talking(self.name):
                self._system.pipe_file(path, content)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic(Path(path)) as part:
            part.write_bytes(content)

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            if self.remote:
                with talking(self.name):
                    return cast(bytes, self._system.cat_file(f"{self._inside}/{name}"))
            return Path(self._inside, name).read_bytes()
        except FileNotFoundError:
            return None

    def sizes(self, name: str = "") -> dict[str, int]:
        """Name -> bytes of the files in it, or in a folder of it; nothing where there is none."""
        inside = f"{self._inside}/{name}".rstrip("/")
        try:
            if self.remote:
                with talking(self.name):
                    self._system.invalidate_cache()
                    found = self._system.ls(inside, detail=True)
                return {one["name"].rpartition("/")[2]: int(one["size"] or 0) for one in found if one["type"] == "file"}
            return {one.name: one.stat().st_size for one in os.scandir(inside) if one.is_file()}
        except FileNotFoundError:
            return {}

    def size(self, name: str) -> int:
        """Bytes of a file; 0 where there is none."""
        try:
            if self.remote:
                with talking(self.name):
                    self._system.invalidate_cache()
                    return int(self._system.info(f"{self._inside}/{name}")["size"] or 0)
            return Path(self._inside, name).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, *names: str) -> None:
        """Delete files, if they are there."""
        for name in names:
            if not self.remote:
                Path(self._inside, name).unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError), talking(self.name):
                self._system.rm_file(f"{self._inside}/{name}")

    def clean(self) -> None:
        """Delete what writers that were killed left half written."""
        if not self.remote and Path(self._inside).is_dir():
            for left in (one for folder in ("", "errors", "_pieces") for one in Path(self._inside, folder).glob(".*.part")):
                left.unlink(missing_ok=True)

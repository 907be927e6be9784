"""From whatever a user hands in - path, file object, bytes, array - to checked bytes or arrays, or one clear InputError.

A reader makes one `Source` at its door: the value, its name, and what is accepted. All that may have to refuse it takes that, so
that a missing, empty, truncated or absurdly large input reads the same in every modality.
"""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.errors import InputError

GIB = 1 << 30
MEMORY_BUDGET = 2 * GIB
"""Bytes that one input may ask for when it is expanded; VITLENS_READ_GIB changes it."""


@dataclass(frozen=True)
class Source:
    """What a reader was given, and what it accepts instead; made once, at the reader's door."""

    value: Any
    accepted: str

    @cached_property
    def name(self) -> str:
        """A short name for messages: a path, or dtype and shape of an array."""
        return name_of(self.value)

    def refuse(self, found: str, hint: str = "", *, accepted: str | None = None) -> InputError:
        """The error that says what was `found`; `hint` goes behind what is accepted, `accepted` in its place."""
        return InputError(self.name, found, (self.accepted if accepted is None else accepted) + hint)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Whatever a decoding library raises in this block becomes one InputError; an InputError passes unchanged."""
        with decoding(self.value, self.accepted):
            yield

    @contextmanager
    def local_file(self, extensions: Sequence[str] = (), format: str | None = None) -> Iterator[Path]:
        """A checked path on disk, as `local_file` gives it."""
        with local_file(self.value, accepted=self.accepted, extensions=extensions, format=format) as path:
            yield path

    def numeric(self, array: np.ndarray, hint: str = "") -> np.ndarray:
        """`array` if it holds real, finite numbers, as `numeric` checks it."""
        return numeric(array, self.value, self.accepted + hint)

    def npy(self, path: Path, *, key: str | None = None) -> np.ndarray:
        """The array of a .npy or .npz file, as `load_npy` reads it."""
        return load_npy(path, self.value, self.accepted, key=key)

    def needs(self, size: int, what: str) -> None:
        """Refuse what would take more memory than one input may; asked before anything is expanded.

        Raises:
            InputError: `size` bytes for `what` (such as "a picture of 13000 x 13000 pixels") are above the budget.
        """
        budget = int(float(os.environ.get("VITLENS_READ_GIB", 0)) * GIB) or MEMORY_BUDGET
        if size > budget:
            found = f"{what}, which takes {size / GIB:.1f} GiB of memory"
            raise self.refuse(found, f"; at most {budget / GIB:g} GiB (VITLENS_READ_GIB changes that)")


def name_of(source: Any) -> str:
    """A short name of `source` for messages: the path, the file object's name, or dtype and shape of an array."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source) or "''"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"<{len(source)} bytes>"
    if hasattr(source, "read"):
        return str(getattr(source, "name", None) or f"<{type(source).__name__}>")
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return f"<array {str(source.dtype).removeprefix('torch.')} {list(source.shape)}>"
    if isinstance(source, list | tuple):
        return f"<{type(source).__name__} of {len(source)}>"
    return f"<{type(source).__name__}>"


def is_path(source: Any) -> bool:
    """Whether `source` names a file on disk."""
    return isinstance(source, str | os.PathLike)


def is_array(source: Any) -> bool:
    """Whether `source` is a numpy array or a torch tensor."""
    return isinstance(source, np.ndarray) or (hasattr(source, "detach") and hasattr(source, "numpy"))


def to_array(source: Any) -> np.ndarray:
    """`source` (numpy array or tensor on any device) as a numpy array, not copied where possible."""
    if hasattr(source, "detach"):
        source = source.detach().cpu()
        source = source.float() if str(source.dtype) == "torch.bfloat16" else source
        return source.numpy()
    return np.asarray(source)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The lower-case extension without its dot (`"npy"`)."""
    return Path(path).suffix.lower().lstrip(".")


def check_file(path: str | os.PathLike[str], *, accepted: str, extensions: Sequence[str] = (), max_bytes: int = 4 * GIB) -> Path:
    """Return `path` as a `Path` once it is an existing, non-empty, readable file of an accepted type and a sane size.

    Raises:
        InputError: the file is missing, a folder, empty, unreadable, of another type, or larger than `max_bytes`.
    """
    file = Path(path)
    name = os.fspath(path)
    if "\0" in name:
        raise InputError(repr(name), "a path with a null character", accepted)
    try:
        if file.is_dir():
            raise InputError(name, "a folder, not a file", accepted)
        if not file.is_file():
            raise InputError(name, "no such file", accepted)
        size = file.stat().st_size
        readable = os.access(file, os.R_OK)
    except OSError as error:  # a name longer than the file system allows, a folder without permission
        raise InputError(name, f"cannot be opened ({error.strerror})", accepted) from error
    if size == 0:
        raise InputError(name, "an empty file", accepted)
    if size > max_bytes:
        raise InputError(name, f"a file of {size / GIB:.1f} GiB", f"{accepted}; at most {max_bytes / GIB:g} GiB")
    if not readable:
        raise InputError(name, "cannot be opened (permission denied)", accepted)
    if extensions and suffix_of(file) not in extensions:
        raise InputError(name, f"a file of type {file.suffix or '(none)'}", accepted)
    return file


@contextmanager
def local_file(
    source: Any, *, accepted: str, extensions: Sequence[str] = (), format: str | None = None, max_bytes: int = 4 * GIB
) -> Iterator[Path]:
    """Yield a checked path on disk for a path, a binary file object or bytes.

    File objects and bytes are copied to a temporary file that is removed afterwards; its type is taken from `format` (`"ply"`)
    or from the object's own name.

    Raises:
        InputError: as `check_file`, or `source` is none of the three, or the type of a file object is not known.
    """
    if is_path(source):
        yield check_file(source, accepted=accepted, extensions=extensions, max_bytes=max_bytes)
        return
    name = name_of(source)
    if hasattr(source, "read"):
        content = source.read(max_bytes + 1)
    elif isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
    else:
        raise InputError(name, f"a {type(source).__name__}", accepted)
    if isinstance(content, str):
        raise InputError(name, "a file opened in text mode", f"{accepted}; open it with mode 'rb'")
    suffix = (format or suffix_of(str(getattr(source, "name", "")))).lower().lstrip(".")
    if extensions and suffix not in extensions:
        found = f"a file of type .{suffix}" if suffix else "a file object whose type is not known"
        raise InputError(name, found, f"{accepted}; say which with format='{extensions[0]}'")
    with tempfile.TemporaryDirectory(prefix="vitlens-") as folder:
        copy = Path(folder) / f"source.{suffix}"
        copy.write_bytes(content)
        try:
            yield check_file(copy, accepted=accepted, extensions=extensions, max_bytes=max_bytes)
        except InputError as error:
            raise InputError(error.source.replace(os.fspath(copy), name), error.found, error.accepted) from error


@contextmanager
def decoding(source: Any, accepted: str) -> Iterator[None]:
    """Turn whatever a decoding library raises into one `InputError` that names `source`; an `InputError` passes unchanged."""
    try:
        yield
    except InputError:
        raise
    except ImportError:
        raise
    except MemoryError as error:  # nearly always a damaged size in a header
        raise InputError(name_of(source), "asks for more memory than there is: damaged, or too large", accepted) from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(name_of(source), f"cannot be decoded ({reason[:200]})", accepted) from error


def numeric(array: np.ndarray, source: Any, accepted: str) -> np.ndarray:
    """Return `array` if it holds real numbers, at least one, all finite.

    Raises:
        InputError: no elements, another dtype (object, string, complex, bool), or NaN/inf among the values (with their count).
    """
    name = name_of(source)
    if array.dtype.kind not in "iuf":
        raise InputError(name, f"values of type {array.dtype}", accepted)
    if array.size == 0:
        raise InputError(name, f"no values (shape {list(array.shape)})", accepted)
    if array.dtype.kind == "f":
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise InputError(name, f"{bad} of {array.size} values are NaN or infinite", accepted)
    return array


def load_npy(path: Path, source: Any, accepted: str, *, key: str | None = None) -> np.ndarray:
    """Read one array of a .npy or .npz file, never unpickling objects; of several arrays in an .npz, `key` says which.

    Raises:
        InputError: truncated, holds pickled objects, more than the memory budget, or an .npz with several arrays and no (or a
            wrong) `key`.
    """
    from_ = Source(source, accepted)
    with from_.decoding():
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                from_.needs(_npy_bytes(file), "an array")
            return np.load(path, allow_pickle=False)
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if key is None and len(names) != 1:
                raise from_.refuse(f"{len(names)} arrays ({', '.join(names[:8])})", "; say which with key=")
            if key is not None and key not in names:
                raise from_.refuse(f"no array {key!r} (it holds {', '.join(names[:8])})")
            entry = archive.getinfo(archive.namelist()[names.index(key) if key is not None else 0])
            with archive.open(entry) as file:
                from_.needs(max(_npy_bytes(file), entry.file_size), "an array")
            with archive.open(entry) as file:
                return np.lib.format.read_array(file, allow_pickle=False)


def npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype that the header of an open .npy file tells.

    Raises:
        ValueError: no such header.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _npy_bytes(file: Any) -> int:
    shape, dtype = npy_header(file)
    return math.prod(shape) * dtype.itemsize

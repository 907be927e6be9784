"""From whatever a user hands in - path, file object, bytes, array - to checked bytes or arrays, or one clear InputError.

A reader makes one `Source` of what it is handed and passes that on to its helpers, so that a missing, empty, truncated or
absurdly large input reads the same in every modality:

    given = Source(source, self.accepts)
    with given.local_file(format=format) as path:
        values = given.numeric(given.npy(path))
    if values.ndim != 2:
        raise given.refuse(f"{values.ndim} dimensions")
    return Sample(values, given.name)
"""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vitlens import checks
from vitlens.errors import InputError, OptionError, VitlensError

GIB = 1 << 30
MEMORY_BUDGET = 4 * GIB
"""Bytes that one input may take while it is read; VITLENS_READ_GIB changes it."""
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def memory_budget() -> int:
    """`MEMORY_BUDGET`, or what VITLENS_READ_GIB says in its place.

    Raises:
        OptionError: it says no number above 0.
    """
    said = os.environ.get("VITLENS_READ_GIB")
    if not said:
        return MEMORY_BUDGET
    try:
        return int(GIB * checks.number("VITLENS_READ_GIB", float(said), above=0))
    except ValueError as error:
        raise OptionError(f"VITLENS_READ_GIB must be a number above 0, found {said!r}") from error


def name_of(source: Any) -> str:
    """A short name of `source` for messages: the path, the file object's name, or dtype and shape of an array."""
    if isinstance(source, Source):
        return source.name
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
    return os.path.splitext(path)[1].lower().lstrip(".")


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
def utf8_path(path: Path) -> Iterator[str]:
    """`path`, absolute, for a library that takes `a:b` for an address; a link to it where its name is not the UTF-8 it needs."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="vitlens-") as folder:
            link = Path(folder) / f"source.{suffix_of(path).encode('ascii', 'ignore').decode()}"
            link.symlink_to(path.absolute())
            yield str(link)
    else:
        yield str(path.absolute())


@contextmanager
def decoding(source: Any, accepted: str) -> Iterator[None]:
    """Turn whatever a decoding library raises into one `InputError` that names `source`; an `InputError` passes unchanged."""
    try:
        yield
    except (VitlensError, ImportError):
        raise
    except MemoryError as error:  # nearly always a damaged size in a header
        raise InputError(name_of(source), "asks for more memory than there is: damaged, or too large", accepted) from error
    except Exception as error:
        reason = _last_words(str(error)) or type(error).__name__
        raise InputError(name_of(source), f"cannot be decoded ({reason[:200]})", accepted) from error


def _last_words(text: str) -> str:
    """An error's text in one line; of one that brings a whole traceback, the line at its end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if any(line.startswith(("Traceback (", 'File "')) for line in lines) else " ".join(" ".join(lines).split())


@dataclass(frozen=True, eq=False)
class Source:
    """What a reader was handed, with its name and what is accepted instead, for every error that is raised while it is read."""

    value: Any
    accepted: str
    name: str = ""
    """How errors call it; by default `name_of(value)`."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", name_of(self.value))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it keeps its words only: a process that reads for this one needs no more."""
        return Source, (None, self.accepted, self.name)

    @property
    def is_path(self) -> bool:
        """Whether it names a file on disk."""
        return is_path(self.value)

    @property
    def is_array(self) -> bool:
        """Whether it is a numpy array or a torch tensor."""
        return is_array(self.value)

    def refuse(self, found: str, hint: str = "", *, accepted: str | None = None) -> InputError:
        """The error for what was `found`, to be raised; `hint` is added to what is accepted, `accepted` stands in its place."""
        accepted = self.accepted if accepted is None else accepted
        return InputError(self.name, found, f"{accepted}; {hint}" if hint else accepted)

    def decoding(self) -> AbstractContextManager[None]:
        """`decoding` of this source: what a library raises becomes an InputError."""
        return decoding(self, self.accepted)

    def needs(self, size: float, what: str, hint: str = "") -> None:
        """Refuse what would take more memory than one input may; asked as soon as a header tells, before anything is expanded.

        Raises:
            InputError: `size` bytes for `what` (such as "a picture of 13000 x 13000 pixels") are above the budget.
        """
        if size > memory_budget():
            found = f"{what}, which takes {size / GIB:.1f} GiB of memory"
            most = f"at most {memory_budget() / GIB:g} GiB (VITLENS_READ_GIB changes that)"
            raise self.refuse(found, f"{hint}: {most}" if hint else most)

    def array(self) -> np.ndarray:
        """The array or tensor it is, as a numpy array, not copied where possible."""
        with self.decoding():
            return to_array(self.value)

    def numeric(self, array: np.ndarray, hint: str = "") -> np.ndarray:
        """Return `array` if it holds real numbers, at least one, all finite.

        Raises:
            InputError: no elements, another dtype (object, string, complex, bool), or NaN/inf among the values (with their
                count).
        """
        if array.dtype.kind not in "iuf":
            raise self.refuse(f"values of type {array.dtype}", hint)
        if array.size == 0:
            raise self.refuse(f"no values (shape {list(array.shape)})", hint)
        if array.dtype.kind == "f":
            bad = array.size - int(np.isfinite(array).sum())
            if bad:
                raise self.refuse(f"{bad} of {array.size} values are NaN or infinite", hint)
        return array

    @contextmanager
    def local_file(
        self, extensions: Sequence[str] = (), format: str | None = None, *, max_bytes: int = 4 * GIB
    ) -> Iterator[Path]:
        """Yield a checked path on disk for a path, a binary file object or bytes.

        File objects and bytes are copied to a temporary file that is removed afterwards; its type is taken from `format`
        (`"ply"`) or from the object's own name.

        Raises:
            InputError: as `check_file`, or it is none of the three, or the type of a file object is not known.
        """
        if self.is_path:
            yield check_file(self.value, accepted=self.accepted, extensions=extensions, max_bytes=max_bytes)
            return
        if hasattr(self.value, "read"):
            content = self.value.read(max_bytes + 1)
        elif isinstance(self.value, bytes | bytearray | memoryview):
            content = bytes(self.value)
        else:
            raise self.refuse(f"a {type(self.value).__name__}")
        if isinstance(content, str):
            raise self.refuse("a file opened in text mode", "open it with mode 'rb'")
        suffix = (format or suffix_of(str(getattr(self.value, "name", "")))).lower().lstrip(".")
        if extensions and suffix not in extensions:
            found = f"a file of type .{suffix}" if suffix else "a file object whose type is not known"
            raise self.refuse(found, f"say which with format='{extensions[0]}'")
        with tempfile.TemporaryDirectory(prefix="vitlens-") as folder:
            copy = Path(folder) / f"source.{suffix}"
            copy.write_bytes(content)
            try:
                yield check_file(copy, accepted=self.accepted, extensions=extensions, max_bytes=max_bytes)
            except InputError as error:
                raise InputError(error.source.replace(os.fspath(copy), self.name), error.found, error.accepted) from error

    def npy(
        self, path: Path, *, key: str | None = None, check: Callable[[tuple[int, ...]], None] = lambda shape: None
    ) -> np.ndarray:
        """Read one array of a .npy or .npz file, never unpickling objects; of several arrays in an .npz, `key` says which.

        `check` gets the shape that the array's header states before anything is read, and may refuse it.

        Raises:
            InputError: truncated, holds pickled objects, asks for too much memory, or an .npz with several arrays and no (or a
                wrong) `key`.
        """
        with self.decoding(), path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                return self._load_array(file, path.stat().st_size, check)
            with zipfile.ZipFile(file) as archive:
                names = {entry.removesuffix(".npy"): entry for entry in archive.namelist()}
                if key is None and len(names) != 1:
                    raise self.refuse(f"{len(names)} arrays ({', '.join([*names][:8])})", "say which with key=")
                if key is not None and key not in names:
                    raise self.refuse(f"no array {key!r} (it holds {', '.join([*names][:8])})")
                entry = archive.getinfo(names[key if key is not None else next(iter(names))])
                with archive.open(entry) as member:
                    return self._load_array(member, entry.file_size, check)

    def _load_array(self, file: IO[bytes], size: int, check: Callable[[tuple[int, ...]], None]) -> np.ndarray:
        """The array of the .npy content `file` of `size` bytes."""
        shape, dtype = npy_header(file)
        count, head = math.prod(shape) * dtype.itemsize, file.tell()
        self.needs(count, f"an array of shape {list(shape)}")
        check(shape)
        if not dtype.hasobject and size < head + count:
            raise self.refuse(f"cut short: {size} of {head + count} bytes")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def decoded_text(content: bytes) -> str:
    """A text file's content: UTF-16 or UTF-8 by its mark, else as single bytes, which keep numbers and English names."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "latin-1")
    return content.decode(encoding)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array that a .npy content begins with; `file` stands behind the header then.

    Raises:
        ValueError: no .npy content.
    """
    first = np.lib.format.read_magic(file)[0] == 1
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype

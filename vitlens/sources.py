"""From whatever a user hands in - path, file object, bytes, array - to checked bytes or arrays, or one clear InputError.

Readers in `vitlens.modalities` share these helpers, so that a missing, empty, truncated or absurdly large input reads the
same in every modality.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.errors import InputError

GIB = 1 << 30


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
        InputError: truncated, holds pickled objects, or an .npz with several arrays and no (or a wrong) `key`.
    """
    name = name_of(source)
    with decoding(source, accepted):
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            names = list(archive.files)
            if key is None and len(names) != 1:
                raise InputError(name, f"{len(names)} arrays ({', '.join(names[:8])})", f"{accepted}; say which with key=")
            if key is not None and key not in names:
                raise InputError(name, f"no array {key!r} (it holds {', '.join(names[:8])})", accepted)
            return archive[key or names[0]]

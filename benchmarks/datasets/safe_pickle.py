"""Pickles that datasets are distributed in, read as data only: arrays, lists, dicts, numbers and text, never code.

numpy's own `allow_pickle` runs whatever a file says. Here only the few names that rebuild a numpy array are known; any other
ends in an InputError.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.sources import GIB, check_file, decoding

MAX_BYTES = 64 * GIB


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocol 2 spell bytes."""
    if encoding.lower().replace("-", "") not in ("latin1", "iso88591"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _known() -> dict[tuple[str, str], Callable[..., Any]]:
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _bytes,
    }
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")):
        rebuild = getattr(import_module(f"numpy._core.{module}"), name)
        names |= {(f"numpy.{core}.{module}", name): rebuild for core in ("core", "_core")}
    return names


class _DataUnpickler(pickle.Unpickler):
    """Knows how to rebuild numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        found = _known().get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is not data")
        return found


def load_data(path: Path, accepted: str) -> Any:
    """What a .npy or pickle file holds, its objects rebuilt without running code; plain .npy arrays stay on disk (memory-mapped).

    A 0-d object array, as `np.save` makes of a dict, is given as the object.

    Raises:
        InputError: missing, cut short, or with anything in it but arrays, lists, dicts, numbers and text.
    """
    check_file(path, accepted=accepted, max_bytes=MAX_BYTES)
    with decoding(path, accepted), path.open("rb") as stream:
        if stream.read(6) != b"\x93NUMPY":
            stream.seek(0)
            return _DataUnpickler(stream, encoding="latin1").load()
        stream.seek(0)
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        if not header(stream)[2].hasobject:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        found = _DataUnpickler(stream, encoding="latin1").load()
        return found.item() if isinstance(found, np.ndarray) and found.ndim == 0 else found

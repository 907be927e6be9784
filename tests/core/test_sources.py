"""Sources: named once, pickled by name, and never expanded beyond what one input may take."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vitlens.errors import InputError
from vitlens.sources import MEMORY_BUDGET, Source


def header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_a_source_refuses_by_name_and_keeps_it_in_another_process() -> None:
    source = pickle.loads(pickle.dumps(Source(np.zeros((2, 3), np.float32), "a map")))
    error = source.refuse("two rows", "three")
    assert (error.source, error.found, error.accepted) == ("<array float32 [2, 3]>", "two rows", "a map; three")
    with pytest.raises(InputError, match=r"<array float32 \[2, 3\]>: cannot be decoded \(no\)"), source.decoding():
        raise ValueError("no")


@pytest.mark.parametrize("shape", ["(40000, 40000)", "(10000000000,)", f"({10**15}, {10**15})", "(2, 3)"])
def test_an_array_that_is_not_there_is_refused_by_its_header(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "map.npy"
    path.write_bytes(header(shape))
    with pytest.raises(InputError, match=r"GiB of memory|cut short: 128 of 152 bytes"):
        Source(path, "maps").npy(path)


def test_a_small_npz_that_unpacks_to_much_is_refused_before_it_does(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(header(f"({MEMORY_BUDGET // 4 + 1},)"))
        member.write(bytes(1 << 20))
    with pytest.raises(InputError, match=r"an array of shape \[1073741825\], which takes 4\.0 GiB of memory"):
        Source(path, "maps").npy(path)


def test_a_shape_that_is_not_wanted_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path, source = tmp_path / "map.npy", Source("map.npy", "maps")
    path.write_bytes(header("(16, 1048576, 16)"))

    def check(shape: tuple[int, ...]) -> None:
        raise source.refuse(f"{len(shape)} dimensions")

    with pytest.raises(InputError, match="3 dimensions"):
        source.npy(path, check=check)


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.float32(4)])
def test_arrays_come_as_numpy_loads_them(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", first=array)
    np.savez(tmp_path / "b.npz", first=array, other=np.zeros(2))
    for name, key in (("a.npy", None), ("a.npz", None), ("a.npz", "first"), ("b.npz", "first")):
        loaded = Source(name, "maps").npy(tmp_path / name, key=key)
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be decoded"):
        Source(path, "maps").npy(path)
    with pytest.raises(InputError, match="cannot be decoded"), Source(io.BytesIO(b"x"), "maps").local_file(format="npy") as copy:
        Source(copy, "maps").npy(copy)

"""LAS and LAZ files by laspy, in a process of its own: a damaged LAZ file may end the one that reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitlens.errors import InputError, MissingDependencyError
from vitlens.isolation import isolated
from vitlens.sources import Source


def read_las(path: Path, source: Source, most: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates [n, 3], z up, and colours [n, 3] of 16 bits, though many writers store 8; all black stands for none.

    Raises:
        InputError: another format, cut short, damaged, or more than `most` points.
        MissingDependencyError: laspy or lazrs is not installed.
    """
    with path.open("rb") as file:
        if file.read(4) != b"LASF":
            raise source.refuse("not a LAS file (it does not begin with 'LASF')")
    xyz, rgb = isolated(_points, path, source, most)
    return xyz, rgb if rgb is not None and rgb.any() else None


def _points(path: Path, source: Source, most: int) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        import laspy
        import lazrs
    except ModuleNotFoundError as error:
        raise MissingDependencyError("reading .las and .laz files needs laspy and lazrs: pip install 'laspy[lazrs]'") from error
    try:
        with laspy.open(path, laz_backend=laspy.LazBackend.Lazrs, read_evlrs=False) as reader:
            count = reader.header.point_count
            if not 0 < count <= most:
                raise source.refuse(f"{count:,} points in a LAS file", f"1 to {most:,} points")
            las = reader.read()
    except InputError:
        raise
    except (laspy.LaspyException, lazrs.LazrsError, ValueError, OverflowError, OSError) as error:
        raise source.refuse(f"a LAS file cut short or with a damaged header ({str(error)[:200]})") from error
    if len(las) < count:
        raise source.refuse(f"a LAS file cut short: {len(las):,} of {count:,} points")
    coloured = {"red", "green", "blue"} <= set(las.point_format.dimension_names)
    return las.xyz, np.stack([las.red, las.green, las.blue], axis=1) if coloured else None

"""LAS and LAZ files by laspy, in a process of its own and with a time limit.

A damaged LAZ file may end the process that reads it, and a damaged header keep it busy for a minute.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from vitlens.errors import MissingDependencyError
from vitlens.sources import Source

LAS_SECONDS = 30
"""After so many seconds, and one more per megabyte, a file counts as damaged."""
_READER = """
import sys
source, target, most, *sys.path = sys.argv[1:]
import laspy, numpy
with laspy.open(source, laz_backend=laspy.LazBackend.Lazrs, read_evlrs=False) as reader:
    count = reader.header.point_count
    if not 0 < count <= int(most):
        sys.exit(f"{count:,} points")
    las = reader.read()
if len(las) < count:
    sys.exit(f"{len(las):,} of {count:,} points")
colours = {"red", "green", "blue"} <= set(las.point_format.dimension_names)
numpy.savez(target, xyz=las.xyz, rgb=numpy.stack([las.red, las.green, las.blue], axis=1) if colours else numpy.zeros(0))
"""


def read_las(path: Path, source: Source, most: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates [n, 3], z up, and colours [n, 3] of 16 bits, though many writers store 8; all black stands for none.

    Raises:
        InputError: another format, cut short, damaged, or more than `most` points.
    """
    seconds = LAS_SECONDS + path.stat().st_size / 1e6
    with path.open("rb") as file, tempfile.TemporaryDirectory(prefix="vitlens-") as folder:
        if file.read(4) != b"LASF":
            raise source.refuse("not a LAS file (it does not begin with 'LASF')")
        target = Path(folder) / "points.npz"
        command = [sys.executable, "-I", "-c", _READER, str(path), str(target), str(most), *sys.path]
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise source.refuse(f"a LAS file that takes more than {seconds:.0f} s to read: damaged") from None
        if done.returncode:
            reason = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
            if "No module named" in reason:
                raise MissingDependencyError("reading .las and .laz files needs laspy and lazrs: pip install 'laspy[lazrs]'")
            raise source.refuse(f"a LAS file cut short or with a damaged header ({reason[:200]})")
        with np.load(target) as points:
            xyz, rgb = points["xyz"], points["rgb"]
    return xyz, rgb if rgb.any() else None

"""Pressure files: the numbers of a film as its file stores them - arrays of NumPy, or text in rows and columns."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from vitlens.sources import Source, suffix_of

EXTENSIONS = ("npy", "npz", "csv", "txt", "tsv")
LEAST, MOST = 2, 256
"""Cells along a side of a frame."""
MAX_VALUES = 1 << 27
TIMES = {"time": 1.0, "t": 1.0, "s": 1.0, "seconds": 1.0, "time_s": 1.0, "time_ms": 0.001, "ms": 0.001, "milliseconds": 0.001}
"""Names of a column of times, and its unit in seconds."""
COUNTS = ("frame", "index", "sample", "")
"""Names of a column that only counts the rows."""


def load_film(path: Path, source: Source, key: str | None, cells: tuple[int, int] | None) -> tuple[np.ndarray, float | None]:
    """The array of a file, and the frames per second where the file tells times.

    Of text: one frame is rows and columns of numbers; frames are apart by empty lines, or with `cells` (rows, columns of a frame)
    every line is one. A head of names is passed over; a column of times or counts before such lines is no cell.

    Raises:
        InputError: no numbers, rows of different lengths, or a table that may be one frame or one frame a line.
    """
    if suffix_of(path) in ("npy", "npz"):
        return source.npy(path, key=key, check=lambda shape: _check_count(int(np.prod(shape)), source)), None
    source.needs(12 * path.stat().st_size, f"a text of {path.stat().st_size:,} bytes")
    with source.decoding():
        head, blocks = _blocks(path.read_text(encoding="utf-8-sig"), source)
    widths = {len(row) for block in blocks for row in block}
    if len(widths) != 1:
        raise source.refuse(f"rows of {min(widths)} to {max(widths)} values", "the same number in every row")
    if len({len(block) for block in blocks}) != 1:
        raise source.refuse("frames of different numbers of rows", "the same number in every frame")
    table = np.array(blocks, np.float64)
    if len(blocks) > 1:
        return table, None
    return _one_table(table[0], head, source, cells)


def holds_rows(path: Path) -> bool:
    """Whether an array, or a text that begins with rows of two numbers or more, after a head at most."""
    if suffix_of(path) in ("npy", "npz"):
        return True
    try:
        with path.open("rb") as file:
            lines = file.read(4096).decode("utf-8-sig", errors="ignore").splitlines()
    except OSError:
        return False
    return any(_numbers_of(line) > 1 for line in lines)


def check_cells(height: int, width: int, source: Source) -> None:
    """Raises InputError for frames that are no mat's."""
    if not (LEAST <= height <= MOST and LEAST <= width <= MOST):
        raise source.refuse(f"frames of {height} x {width} cells", f"{LEAST} to {MOST} a side, frames first: [frames, h, w]")


def _check_count(count: int, source: Source) -> None:
    if count > MAX_VALUES:
        raise source.refuse(f"{count:,} values", f"at most {MAX_VALUES:,}")


def _one_table(
    table: np.ndarray, head: list[str], source: Source, cells: tuple[int, int] | None
) -> tuple[np.ndarray, float | None]:
    """A table without empty lines: one frame, or a frame a line."""
    rate, columns = None, table.shape[1]
    if head and len(head) == columns and head[0] in (*TIMES, *COUNTS):
        rate = _rate(table[:, 0] * TIMES[head[0]], source) if head[0] in TIMES else None
        table, columns = table[:, 1:], columns - 1
        if cells is None:
            raise source.refuse(f"a frame a line of {columns} values, of unknown form", "shape=[rows, columns] of a frame")
    if cells is not None:
        return table, rate
    rows = len(table)
    if columns > MOST or rows > MOST or (columns == 64 and rows != 64 and rows > 1):
        hint = f"shape=[8, 8] (or whatever a frame is) for a frame a line, shape=[{rows}, {columns}] for one frame"
        raise source.refuse(f"a table of {rows} x {columns} values, which may be one frame or a frame a line", hint)
    return table, rate


def _rate(seconds: np.ndarray, source: Source) -> float | None:
    """Frames per second of the times of a column; None of a single frame."""
    if len(seconds) < 2:
        return None
    step = np.diff(seconds)
    if step.min() <= 0:
        raise source.refuse("times that do not rise from frame to frame")
    return float(1 / np.median(step))


def _blocks(text: str, source: Source) -> tuple[list[str], list[list[list[float]]]]:
    """The names of a head, if there is one, and the numbers of each block of lines between empty ones."""
    lines = text.splitlines()
    sample = next((line for line in lines if _numbers_of(line)), None)
    if sample is None:
        raise source.refuse("no numbers in rows and columns")
    delimiter = next((sign for sign in ("\t", ";", ",") if sign in sample), None)
    head: list[str] = []
    blocks: list[list[list[float]]] = [[]]
    for number, line in enumerate(lines, start=1):
        bare = line.strip().strip(",;")
        if not bare:
            if blocks[-1]:
                blocks.append([])
        elif bare.startswith("#"):
            continue
        else:
            fields = [field.strip() for field in (next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split())]
            fields = fields[:-1] if fields[-1] == "" else fields  # a delimiter that ends the line
            try:
                blocks[-1].append([float(field) for field in fields])
            except ValueError as error:
                if any(blocks):
                    raise source.refuse(f"line {number} holds {line.strip()[:40]!r} among numbers") from error
                head = [field.strip().lower() for field in fields]
    return head, [block for block in blocks if block]


def _numbers_of(line: str) -> int:
    """How many numbers a line is; 0 where it holds anything else."""
    fields = line.replace(";", " ").replace(",", " ").split()
    try:
        return len([float(field) for field in fields])
    except ValueError:
        return 0

"""Tables of points as text: what .xyz and .txt files say of their columns, and how many points they promise.

x y z first, then colours or normals; separated by white space, commas or semicolons. Lines before the first number are a header,
whose last line may name the columns (CloudCompare writes `//X Y Z R G B A`). A number alone on the first line is a count.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitlens.sources import Source, decoded_text

HEADER = 100
"""Lines that a header may have."""
_ALIASES = {
    "red": "r", "green": "g", "blue": "b", "alpha": "a", "rf": "r", "gf": "g", "bf": "b",
    "normal_x": "nx", "normal_y": "ny", "normal_z": "nz",
}  # fmt: skip


def read_table(path: Path, source: Source) -> tuple[np.ndarray, list[str] | None]:
    """The numbers [n, columns], and the columns' names in lower case where the header has as many (`r`, `g`, `b`, `nx` ...).

    Raises:
        InputError: no line of numbers, rows of unequal length, or another number of rows than the first line counts.
    """
    lines = decoded_text(path.read_bytes()).splitlines()
    start = next((at for at, line in enumerate(lines[: HEADER + 1]) if _numbers(line)), None)
    if start is None:
        raise source.refuse(f"no line of numbers{f' among the first {HEADER}' if len(lines) > HEADER else ''}")
    head, rows, count = lines[:start], lines[start:], None
    if (words := _words(rows[0])) and len(words) == 1 and len(rows) > 1:
        count, skipped = _count(words[0], source), 1 if _numbers(rows[1]) else 2  # the second line may be a comment
        rows = rows[skipped:]
    rows = [row for row in rows if row.strip()]
    if count is not None and count != len(rows):
        raise source.refuse(f"{len(rows):,} rows where the first line says {count:,}: cut short, or no table of points")
    if not rows:
        raise source.refuse("no line of numbers")
    table = _parsed(rows, source)
    return table, _names(head, table.shape[1])


def _words(line: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", line.strip()) if word]


def _numbers(line: str) -> bool:
    words = _words(line)
    try:
        return bool(words) and all(np.isfinite(float(word)) or True for word in words)
    except ValueError:
        return False


def _count(word: str, source: Source) -> int:
    if not word.isdecimal():
        raise source.refuse(f"a first line of one number, {word[:20]}, which is no count of points")
    return int(word)


def _parsed(rows: Sequence[str], source: Source) -> np.ndarray:
    delimiter = next((mark for mark in ",;" if mark in rows[0]), None)
    try:
        return np.loadtxt(io.StringIO("\n".join(rows)), delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise source.refuse(f"rows that are no table of numbers ({str(error)[:120]})") from error


def _names(head: Sequence[str], columns: int) -> list[str] | None:
    """The names in the header's last line, where they are as many as the columns and x, y, z among them."""
    words = [word.lower() for word in _words(head[-1].lstrip('/# \t"').replace('"', ""))] if head else []
    names = [_ALIASES.get(word, word) for word in words]
    return names if len(names) == columns and {"x", "y", "z"} <= set(names) else None

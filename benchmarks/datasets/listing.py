"""What the readers of datasets share: list files, labels, and the search for what is missing; every message names the file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitlens.benchmarks.datasets.dataset import DatasetItem, Problem
from vitlens.errors import InputError
from vitlens.sources import check_file, decoding


def csv_rows(path: Path, columns: Sequence[str], *, header: bool = True) -> list[tuple[str, dict[str, str]]]:
    """Rows of a comma-separated list with the `columns` that are needed, each with its place ("meta.csv, line 3") for messages.

    Without `header` the columns are called as in `columns`, in that order. Lines that begin with # may come first.

    Raises:
        InputError: no such file, not UTF-8, a column or value that is missing, no rows.
    """
    accepted = f"a list with the columns {', '.join(columns)}"
    check_file(path, accepted=accepted)
    rows = []
    with decoding(path, accepted), path.open(encoding="utf-8-sig", newline="") as stream:
        lines = stream.readlines()
        skip = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        reader = csv.reader(lines[skip:], skipinitialspace=True)
        names = next(reader, []) if header else list(columns)
        if missing := [name for name in columns if name not in names]:
            raise InputError(str(path), f"no column {', '.join(missing)} (it has {', '.join(names) or 'none'})", accepted)
        for values in reader:
            if not values:
                continue
            row, where = dict(zip(names, values, strict=False)), f"{path}, line {reader.line_num + skip}"
            if any(name not in row for name in columns):
                raise InputError(where, f"{len(values)} values", f"{accepted}: {len(names)} values a line")
            rows.append((where, row))
    if not rows:
        raise InputError(str(path), "no rows", accepted)
    return rows


def text_lines(path: Path, accepted: str) -> list[tuple[str, str]]:
    """The lines of a text file that are not blank, each with its place for messages.

    Raises:
        InputError: no such file, not UTF-8, no lines.
    """
    check_file(path, accepted=accepted)
    with decoding(path, accepted):
        text = path.read_text(encoding="utf-8-sig")
    lines = [(f"{path}, line {i}", line.strip()) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InputError(str(path), "no lines", accepted)
    return lines


def json_records(path: Path, keys: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The records of a JSON list with the `keys` that are needed, each with its place for messages.

    Raises:
        InputError: no such file, no JSON, no list of records, a key that is missing, no records.
    """
    accepted = f"a JSON list of records with {', '.join(keys)}"
    records = json_content(path, accepted)
    if not isinstance(records, list) or not records:
        raise InputError(str(path), "no list of records" if not isinstance(records, list) else "no records", accepted)
    found = []
    for number, record in enumerate(records):
        where = f"{path}, record {number}"
        if not isinstance(record, dict) or (missing := [key for key in keys if key not in record]):
            what = f"no {', '.join(missing)}" if isinstance(record, dict) else f"a {type(record).__name__}"
            raise InputError(where, what, accepted)
        found.append((where, record))
    return found


def json_content(path: Path, accepted: str) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: no such file, or no JSON.
    """
    check_file(path, accepted=accepted)
    with decoding(path, accepted):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def checked_label(label: Any, classes: Sequence[str], where: str) -> str:
    """`label`, if it is one of `classes`.

    Raises:
        InputError: it is not; the place of the list and the classes are named.
    """
    if not isinstance(label, str) or label not in classes:
        shown = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
        raise InputError(where, f"the label {label!r}, which is not in the class list", f"one of {len(classes)} classes: {shown}")
    return label


def label_at(number: Any, classes: Sequence[str], where: str) -> str:
    """The class of a label number (an integer, an array of one, or decimal digits).

    Raises:
        InputError: no whole number, or no class of that number.
    """
    if getattr(number, "size", 0) == 1:  # numpy's
        number = number.reshape(-1)[0].item()
    try:
        index = int(number)
    except (TypeError, ValueError):
        index = -1
    if not 0 <= index < len(classes) or str(number).strip() != str(index):
        raise InputError(where, f"the label {number!r}, which is not in the class list", f"0 to {len(classes) - 1}")
    return classes[index]


def whole_number(text: Any, where: str) -> int:
    """`text` as a whole number.

    Raises:
        InputError: it is none.
    """
    try:
        return int(text)
    except (TypeError, ValueError) as error:
        raise InputError(where, f"{text!r}", "a whole number") from error


def absent(root: Path, parts: Mapping[str, str]) -> list[Problem]:
    """A Problem for every path in `parts` (seen from `root`, folders with a trailing slash) that is not there.

    `parts` says of each what it is; a `root` that is no folder is the only Problem then.
    """
    if not root.is_dir():
        return [Problem(str(root), "the dataset's folder, with " + ", ".join(parts) + " in it")]
    problems = []
    for part, expected in parts.items():
        place = root / part
        if not (place.is_dir() if part.endswith("/") else place.is_file()):
            problems.append(Problem(str(place), expected))
    return problems


def absent_files(paths: Iterable[Path], expected: str, *, of: int, shown: int = 3) -> list[Problem]:
    """Problems of a half-copied dataset: the first files that are missing, then one with their number of `of`."""
    missing = [path for path in paths if not path.is_file()]
    problems = [Problem(str(path), expected) for path in missing[:shown]]
    if len(missing) > shown:
        problems.append(Problem(os.path.commonpath(missing), f"{of} files: {len(missing)} of them are missing"))
    return problems


def wrong_count(path: Path, found: int, expected: int | None, what: str) -> list[Problem]:
    """A Problem if a list or folder holds another number of things than a complete copy has."""
    return [] if expected in (None, found) else [Problem(str(path), f"{expected:,} {what}, found {found:,}")]


def some(items: list[DatasetItem], source: Path, expected: str) -> list[DatasetItem]:
    """`items`, if there are any.

    Raises:
        InputError: there are none; `source` is where they should have come from.
    """
    if not items:
        raise InputError(str(source), "nothing of this split", expected)
    return items

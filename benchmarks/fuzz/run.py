"""Read mutated files, each in a process that may die of it, and count what comes: read, refused, or worse.

Case number i of a seed is always the same file, so that what went wrong can be looked at again.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitlens.benchmarks.fuzz.corpus import Whole, write_corpus
from vitlens.benchmarks.fuzz.mutate import mutated
from vitlens.benchmarks.fuzz.reading import read
from vitlens.display.table import Table
from vitlens.errors import InputError
from vitlens.isolation import isolated
from vitlens.sources import Source

OUTCOMES = ("ok", "refused", "crash", "hang", "other")
_CRASH, _HANG = "its reader crashes", "reading it takes more than"


@dataclass(frozen=True)
class Case:
    """One mutated file and what became of it: "other" is an exception that is no InputError."""

    number: int
    format: str
    outcome: str
    detail: str = ""


@dataclass
class Report:
    """All cases of a run."""

    seed: int
    cases: list[Case] = field(default_factory=list)

    @property
    def faults(self) -> list[Case]:
        """What should not be: crashes, hangs, other exceptions."""
        return [case for case in self.cases if case.outcome not in ("ok", "refused")]

    def table(self) -> Table:
        """A row per format and one for all."""
        counts = Counter((case.format, case.outcome) for case in self.cases)
        rows = [
            [name, *(str(counts[name, outcome]) for outcome in OUTCOMES)] for name in sorted({case.format for case in self.cases})
        ]
        total = Counter(case.outcome for case in self.cases)
        rows.append(["all", *(str(total[outcome]) for outcome in OUTCOMES)])
        return Table(["format", *OUTCOMES], rows, numbers=OUTCOMES)


def fuzz(
    *,
    seed: int = 0,
    count: int | None = None,
    seconds: float | None = None,
    formats: Sequence[str] = (),
    first: int = 0,
    jobs: int = 2,
    keep: Path | None = None,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Read the cases from number `first` on, `count` of them or for so many `seconds`; faults are written to `keep`.

    `formats` are words of the table's first column ("eeg", "point_cloud obj"); none: all. Ctrl-C ends it with what there is;
    `progress` gets the report after every few cases.
    """
    report, started = Report(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vitlens-fuzz-") as folder:
        corpus = [whole for whole in write_corpus(Path(folder)) if not formats or _named(whole, formats)]
        if not corpus:
            raise InputError(", ".join(formats), "no format of this name", "a sensor, or a sensor and a file type")

        def one(number: int) -> Case | None:
            if seconds is not None and time.monotonic() - started > seconds:
                return None
            return _case(corpus[number % len(corpus)], number, seed, keep)

        with ThreadPoolExecutor(jobs) as pool, contextlib.suppress(KeyboardInterrupt):
            last = first + (count if count is not None else 1_000_000_000 if seconds is not None else len(corpus))
            block = 16 * jobs
            for begin in range(first, last, block):
                found = [case for case in pool.map(one, range(begin, min(begin + block, last))) if case is not None]
                report.cases += found
                progress(report)
                if len(found) < min(block, last - begin):
                    break
    return report


def _named(whole: Whole, formats: Sequence[str]) -> bool:
    return any(name in (whole.modality, whole.format, whole.path.suffix.lstrip(".")) for name in formats)


def _case(whole: Whole, number: int, seed: int, keep: Path | None) -> Case:
    rng = np.random.default_rng([seed, number])
    with tempfile.TemporaryDirectory(prefix="vitlens-fuzz-case-") as folder:
        files = [whole.path, *whole.beside]
        hit = files[int(rng.integers(len(files)))]
        for file in files:
            content = file.read_bytes()
            (Path(folder) / file.name).write_bytes(mutated(content, rng) if file == hit else content)
        path = Path(folder) / whole.path.name
        case = _outcome(whole, path, number)
        if keep is not None and case.outcome not in ("ok", "refused"):
            shutil.copytree(folder, keep / f"{number}-{case.outcome}", dirs_exist_ok=True)
        return case


def _outcome(whole: Whole, path: Path, number: int) -> Case:
    if not path.stat().st_size:
        return Case(number, whole.format, "refused", "an empty file")
    try:
        kind, detail = isolated(read, path, Source(path, ""), whole.modality, whole.options)
    except InputError as error:
        kind = "crash" if error.found.startswith(_CRASH) else "hang" if error.found.startswith(_HANG) else "refused"
        detail = error.found
    return Case(number, whole.format, kind, detail)

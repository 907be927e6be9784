"""The fuzzer finds what it is for: a reader that crashes or raises; its cases are the same each time; real readers pass a few."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitlens.benchmarks.fuzz import reading, run
from vitlens.benchmarks.fuzz.corpus import Whole, write_corpus
from vitlens.benchmarks.fuzz.mutate import mutated
from vitlens.errors import InputError
from vitlens.sources import Source


def dies(path: Path, source: Source, modality: str, options: dict[str, Any]) -> tuple[str, str]:
    os.abort()


def raises(path: Path, source: Source, modality: str, options: dict[str, Any]) -> tuple[str, str]:
    class Odd:
        def read(self, path: Path) -> None:
            raise RuntimeError("a bug")

    reading.SENSORS["odd"] = Odd()  # type: ignore[assignment]
    return reading.read(path, source, "odd", {})


def test_a_seed_and_a_number_give_the_same_damage() -> None:
    content = bytes(range(256)) * 8
    made = [mutated(content, np.random.default_rng([0, number])) for number in range(200)]
    assert made == [mutated(content, np.random.default_rng([0, number])) for number in range(200)]
    assert len(set(made)) > 190


def test_every_file_of_the_corpus_is_whole(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path)
    assert {whole.modality for whole in corpus} >= {"image", "audio", "depth", "point_cloud", "eeg", "tactile", "video", "text"}
    assert len({whole.format for whole in corpus}) > 30
    for whole in corpus:
        if whole.modality in ("image", "depth", "point_cloud"):
            assert reading.SENSORS[whole.modality].read(whole.path, **whole.options).data is not None, whole.format


@pytest.mark.parametrize(("read", "outcome"), [(dies, "crash"), (raises, "other")])
def test_crashes_and_bugs_are_found_and_kept(read: Any, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read", read)
    path = tmp_path / "a.txt"
    path.write_text("words")
    case = run._case(Whole("text", path), 7, 0, tmp_path / "kept")
    assert (case.number, case.format, case.outcome) == (7, "text txt", outcome)
    assert (tmp_path / "kept" / f"7-{outcome}" / "a.txt").is_file()


def test_what_was_read_is_told_also_after_an_interrupt() -> None:
    seen: list[int] = []

    def interrupt(report: run.Report) -> None:
        seen.append(len(report.cases))
        if len(seen) == 2:
            raise KeyboardInterrupt

    report = run.fuzz(count=200, formats=["text"], jobs=1, progress=interrupt)
    assert seen == [16, 32]
    assert len(report.cases) == 32


def test_real_readers_pass_and_the_table_counts_them() -> None:
    report = run.fuzz(count=12, formats=["audio wav", "image png"])
    assert len(report.cases) == 12
    assert not report.faults
    assert report.table().rows[-1][0] == "all"
    assert sum(int(cell) for cell in report.table().rows[-1][1:]) == 12
    with pytest.raises(InputError, match="no format of this name"):
        run.fuzz(count=1, formats=["smell"])


def test_a_reader_that_takes_its_own_process_along_refuses_the_file() -> None:
    report = run.fuzz(first=37, count=1, formats=["point_cloud laz"])  # a LAZ file that laszip's arithmetic decoder aborts on
    assert [(case.format, case.outcome) for case in report.cases] == [("point_cloud laz", "refused")]

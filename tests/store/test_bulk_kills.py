"""Three thousand mixed files, thirty of them broken, and ten kills at random: nothing is lost, nothing is there twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import vitlens
from vitlens.benchmarks.speed.bulk import MODEL, disturbed, embed, rows_of, write_world


@pytest.mark.slow
def test_ten_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    files, whole, out = tmp_path / "files", tmp_path / "whole", tmp_path / "out"
    write_world(files, 3000, 30)
    model = vitlens.load(MODEL, modalities=["image", "audio", "point_cloud", "text"], device="cpu")
    killed = disturbed(files, out, 10, ["local"], random.Random(0), model)
    assert killed.total() == 10 and len(killed) == 2, "drivers and readers"
    embedded, failed = rows_of(out)
    assert (embedded.total(), failed.total()) == (2970, 30)
    assert {*embedded, *failed} == {str(path) for path in files.rglob("*") if path.is_file()}
    embed(files, whole, model)
    for file in whole.rglob("*.parquet"):
        assert (out / file.relative_to(whole)).read_bytes() == file.read_bytes(), file.name

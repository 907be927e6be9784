"""The README's first Python lines run as they stand, on the files of `make demo`; no line of code is wider than its box."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.repository import ROOT
from vitlens.benchmarks.toybox.sensors.make import make_toybox
from vitlens.benchmarks.toybox.world.objects import World

FIRST = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_lines_run_on_the_demos_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FIRST is not None
    monkeypatch.chdir(tmp_path)
    make_toybox(
        Path("demo"), objects={"test": 2}, world=World(), sensors=["image", "point_cloud", "audio"], workers=0, progress=False
    )
    names: dict[str, object] = {}
    exec(FIRST[1], names)
    out, model = names["out"], names["model"]
    assert {name: tuple(rows.shape) for name, rows in out.items()} == dict.fromkeys(
        ["audio", "point_cloud", "image", "text"], (2, 128)
    )  # type: ignore[attr-defined]
    assert model.similarity(out["point_cloud"], out["image"]).argmax(1).tolist() == [0, 1]  # type: ignore[attr-defined, index]
    assert "hammer" in capsys.readouterr().out


def test_no_line_of_code_is_wider_than_its_box() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 88] == []


def test_the_picture_is_there_and_small() -> None:
    assert (ROOT / "docs" / "pictures" / "senses.png").stat().st_size < 400_000

"""`vitlens bench`: what the table, the JSON and the plot hold, and when a figure counts as worse. Nothing here is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vitlens.benchmarks.speed import bench, figures
from vitlens.benchmarks.speed.bench import Report, measure
from vitlens.benchmarks.speed.figures import FIGURES, Figure, Scope, faster, in_turns
from vitlens.cli.app import app
from vitlens.errors import InputError, OptionError

CPU = torch.device("cpu")


def report(ratio: float) -> Report:
    return Report(
        [faster("sorting", "times as fast as by hand", (1.0, ratio), 2.0), Figure("other", 3.0, "of", (1, 3))], {"device": "cpu"}
    )


def test_runs_take_turns_and_the_first_round_only_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = iter(range(100))
    monkeypatch.setattr(figures.time, "perf_counter", lambda: float(next(clock)))
    seconds = in_turns(lambda: calls.append("a"), lambda: calls.append("b"), rounds=2, device=CPU)
    assert calls == ["a", "b"] * 3
    assert seconds == [1.0, 1.0]


def test_a_ratio_is_the_yardsticks_time_over_ours() -> None:
    assert faster("x", "of", (2.0, 6.0)).ratio == 3.0


def test_the_table_says_ratio_goal_and_machine() -> None:
    table = report(2.5).table()
    assert table.rows[0][:3] == ["sorting", "2.50", "2"]
    assert "device cpu" in table.note


def test_what_fell_by_more_than_15_percent_is_worse(tmp_path: Path) -> None:
    report(2.0).write(tmp_path / "before.json")
    assert report(1.8).worse_than(tmp_path / "before.json") == []
    assert report(1.6).worse_than(tmp_path / "before.json") == ["sorting: 1.60, was 2.00"]
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match=r"other\.json: cannot be decoded"):
        report(1.0).worse_than(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        report(1.0).worse_than(tmp_path / "none.json")


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    assert report(2.5).draw(tmp_path / "speed.png").read_bytes()[:4] == b"\x89PNG"


def test_unknown_figures_are_named() -> None:
    with pytest.raises(OptionError, match="unknown figures 'vits'; known: vit, attention"):
        measure(Scope(), ["vits"])


def test_operations_are_those_of_the_products() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    vit = figures._vit(2).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        vit(torch.randn(1, 256, 1024))
    assert figures._flops(vit, 1) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_command_writes_checks_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FIGURES", {**FIGURES, "points": lambda scope: iter([faster("points", "of", (1.0, 2.0))])})
    out = tmp_path / "speed.json"
    done = CliRunner().invoke(app, ["bench", "points", "--quick", "--device", "cpu", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["figures"][0]["ratio"] == 2.0
    content = json.loads(out.read_text())
    content["figures"][0]["ratio"] = 4.0
    out.write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["bench", "points", "--device", "cpu", "--check", str(out)])
    assert done.exit_code == 1
    assert "points: 2.00, was 4.00" in done.stderr
    assert CliRunner().invoke(app, ["bench", "vits"]).exit_code == 2
    assert CliRunner().invoke(app, ["bench", "-o", str(tmp_path / "speed.txt")]).exit_code == 2

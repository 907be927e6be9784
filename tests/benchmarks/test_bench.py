"""`vitlens bench`: what the table, the JSON and the plot hold, and when a figure counts as worse. Nothing here is timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.test_completeness import spec
from vitlens.benchmarks.speed import bench, figures, gpu, vectors
from vitlens.benchmarks.speed.bench import Report, measure
from vitlens.benchmarks.speed.figures import FIGURES, Figure, Scope, faster, in_turns
from vitlens.benchmarks.speed.growth import Curve
from vitlens.cli.app import app
from vitlens.encoder import build_encoder
from vitlens.errors import InputError, OptionError
from vitlens.vectors import unit

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


def test_a_curve_tells_the_slope_of_its_upper_half(tmp_path: Path) -> None:
    square = Curve("attention", "tokens", (1, 10, 100, 1000), (1.0, 1.0, 1.0, 100.0))
    assert square.slope == pytest.approx(2)
    grown = Report([], {"device": "cpu"}, [square, Curve("items", "pictures", (1, 2, 4), (1.0, 2.0, 4.0))])
    [table] = grown.tables()
    assert [tuple(row[:3]) for row in table.rows] == [
        ("attention", "2.00", "1 s at 1 tokens"),
        ("items", "1.00", "1 s at 1 pictures"),
    ]
    grown.write(tmp_path / "growth.json")
    assert json.loads((tmp_path / "growth.json").read_text())["growth"][0]["slope"] == pytest.approx(2)
    for number, report_of in enumerate((grown, Report(report(2).figures, {}, grown.curves))):
        assert report_of.draw(tmp_path / f"{number}.png").read_bytes()[:4] == b"\x89PNG"


def test_without_cuda_the_gpu_run_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu", "--look"])
    assert gpu.main() == 2
    assert "needs a CUDA device, and there is none" in " ".join(capsys.readouterr().err.split())


def test_a_training_step_counts_its_operations() -> None:
    [plain] = spec("depth").encoders
    batch = torch.randn(4, 1, 224, 224)
    step = gpu.measured_step(build_encoder(plain), batch, name="depth", warm=0, timed=1)
    frozen = 4 * 2 * 65 * 12 * 32 * 32 * 2  # forward, and the gradient to the input
    assert step.operations > frozen
    assert step.row(2 * step.operations / step.seconds)[3] == "50.0 %"
    assert gpu.peak_of("NVIDIA H100 80GB HBM3") == 989e12 and gpu.peak_of("a toaster") is None


def test_smaller_galleries_lose_what_is_told() -> None:
    gallery = unit(np.random.default_rng(0).standard_normal((50, 64)))
    rows = {tuple(row[:2]): row for row in vectors.table(gallery, gallery).rows}
    assert rows["float32", "64"] == ("float32", "64", "256", "1.000", "100.0", "100.0")
    assert rows["binary", "16"][2] == "2" and float(rows["binary", "16"][3]) < float(rows["int8", "64"][3]) <= 1


def test_bf16_is_measured_where_it_is_not_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "product_speed", lambda _: 0.01)
    assert [figure.name for figure in figures.vit_figures(Scope(blocks=1, batch=1, rounds=1))] == ["ViT-L/14 forward fp32"]
    monkeypatch.setattr(figures, "product_speed", lambda _: 0.9)
    assert [*figures._arithmetics(CPU)] == [torch.float32, torch.bfloat16]
    monkeypatch.setattr(figures, "product_speed", lambda _: pytest.fail("only processors imitate it"))
    assert [*figures._arithmetics(torch.device("meta"))] == [torch.float32, torch.bfloat16]


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

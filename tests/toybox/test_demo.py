"""The demo as a user meets it: files, tables, one page that needs nothing else, and commands that work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vitlens.benchmarks.toybox import SENSORS
from vitlens.benchmarks.toybox.demo import report
from vitlens.benchmarks.toybox.demo import run as demo
from vitlens.cli.app import app
from vitlens.cli.toybox import app as toybox
from vitlens.errors import OptionError
from vitlens.model import load


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> demo.Demo:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "OBJECTS", {"test": 5, "unseen_pairs": 3, "unseen_shapes": 3})
        patch.setattr(report, "SHOWN", 5)
        return demo.run_demo(tmp_path_factory.mktemp("demo"))


def test_every_object_has_a_file_of_every_sensor(made: demo.Demo) -> None:
    assert len(made.things) == len(made.files) == 11
    assert all(set(own) == set(made.senses) and all(path.is_file() for path in own.values()) for own in made.files)
    assert set(made.embeddings) == {*made.senses, "text"} and set(made.senses) == set(SENSORS) & set(load(demo.MODEL).modalities)
    assert all(rows.shape == (11, 128) for rows in made.embeddings.values())
    assert {(r.query, r.gallery) for r in made.results.retrievals} >= {("audio", "image"), ("text", "point_cloud")}


def test_the_report_is_one_page_that_needs_nothing_else(made: demo.Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SHOWN", 5)
    page = made.report.read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:image/)', page)
    assert "http" not in re.sub(r"data:image[^\"]*", "", page)
    assert page.count('<div class="object">') == 3 * 5, "measured and answered, described, painted"
    assert made.plugged is not None and list(made.plugged.said) == list(made.plugged.painted) == made.senses
    assert "What a language model says that knows only pictures" in page
    assert page.count('class="search mixture"') == len(made.plugged.mixtures) == 3
    described = zip(made.plugged.shown, made.plugged.said["depth"], strict=True)
    right = [made.things[i].shape in line for i, line in described]
    assert sum(right) >= 4, "depth maps are described as well as pictures"
    assert "%" + "BODY%" not in page
    for thing in (made.things[i] for i in report.shown(made.things)):
        assert f"{thing.shape}, {thing.material}" in page
    assert "shape that no lens has seen" in page


def test_its_commands_work(made: demo.Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = demo.next_commands(made)
    assert len(commands) == 3
    classify = shlex.split(commands[0])
    done = CliRunner().invoke(app, classify[1:])
    assert done.exit_code == 0, done.output
    assert made.things[0].shape in done.output
    similarity = shlex.split(commands[1])
    pictures = sorted((made.folder / "test" / "image").glob("*.png"))
    spread = [str(p) for word in similarity[1:] for p in (pictures if "*" in word else [word])]
    done = CliRunner().invoke(app, spread)
    assert done.exit_code == 0, done.output
    assert commands[2].split("#")[0].split() == ["vitlens", "toybox", "eval"]


def test_the_command_prints_tables_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "OBJECTS", {"test": 2, "unseen_pairs": 1, "unseen_shapes": 1})
    monkeypatch.setattr(report, "SHOWN", 5)
    done = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "d"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert Path(found["report"]).is_file() and len(found["accuracies"]) > 10
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="is a file"):
        demo.run_demo(tmp_path / "file")


def test_toybox_commands_say_what_they_would_do(tmp_path: Path) -> None:
    made = CliRunner().invoke(toybox, ["make", str(tmp_path / "t"), "-n", "28", "--dry-run"])
    assert made.exit_code == 0 and f"train.csv: 28 objects, {28 * len(SENSORS)} files" in made.output
    trained = CliRunner().invoke(toybox, ["train", "-o", str(tmp_path / "r"), "--sensor", "audio", "--dry-run"])
    assert trained.exit_code == 0 and "as audio sees them" in trained.output and "as eeg" not in trained.output
    assert not list(tmp_path.iterdir())
    wrong = CliRunner().invoke(app, ["toybox", "train", "-o", str(tmp_path / "r"), "--sensor", "smell", "--dry-run"])
    assert wrong.exit_code == 2 and "smell" in wrong.output + wrong.stderr


def test_make_and_eval_run(tmp_path: Path) -> None:
    made = CliRunner().invoke(toybox, ["make", str(tmp_path / "t"), "-n", "3", "--sensor", "audio", "-j", "0"])
    assert made.exit_code == 0 and (tmp_path / "t" / "train.csv").is_file()
    done = CliRunner().invoke(toybox, ["eval", "-n", "2", "--folder", str(tmp_path / "e"), "-j", "0", "--json"])
    assert done.exit_code == 0, done.output
    assert {row["items"] for row in json.loads(done.stdout)["accuracies"]} == {2}

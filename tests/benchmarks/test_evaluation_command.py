"""`vitlens eval` and `vitlens datasets` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import vitlens.model
from tests.benchmarks.evaluation_world import DATASETS, TEST, Captions, Shapes, variant, write_world
from tests.train.tiny import tiny_clip
from vitlens.benchmarks.datasets import dataset as registry
from vitlens.cli.app import app
from vitlens.cli.eval import read_templates, short
from vitlens.errors import InputError, OptionError


class Elsewhere(variant(Shapes, name="tiny-elsewhere")):  # type: ignore[misc]
    """A dataset that is not on this machine."""


class Sounds(variant(Captions, name="tiny-sounds", modality="audio")):  # type: ignore[misc]
    """A dataset of a modality that the tiny model does not have."""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Only the tests' datasets, and only the tiny model; returns the names of models that were loaded."""
    loaded: list[str] = []

    def load(name: str, *, modalities: Any = None, device: str | None = None) -> Any:
        loaded.append(name)
        return tiny_clip()

    monkeypatch.setattr(registry, "_import_all", lambda: None)
    monkeypatch.setattr(registry, "_REGISTRY", {cls.card.name: cls for cls in (*DATASETS, Elsewhere, Sounds)})
    monkeypatch.setattr(vitlens.model, "load", load)
    monkeypatch.delenv("VITLENS_DATA", raising=False)
    return loaded


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with some of the datasets."""
    for cls in (*DATASETS, Sounds):
        write_world(tmp_path / "data" / cls.card.name)
    return tmp_path / "data"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_results_and_reports_are_written(data: Path, tmp_path: Path, known: list[str]) -> None:
    where = ("--data-root", data, "-o", tmp_path / "out", "--cache", tmp_path / "cache", "--model", "tiny")
    done = call("eval", "tiny-shapes", "tiny-captions", *where)
    assert done.exit_code == 0, done.output
    assert known == ["tiny"]
    runs = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")}
    assert set(runs) == {"tiny-shapes_test_tiny_zero-shot_default", "tiny-captions_test_tiny_zero-shot_default"}
    top1 = runs["tiny-shapes_test_tiny_zero-shot_default"]["metrics"]["top1"]
    assert f"{top1:.2f}" in done.stdout and "report.html" in done.stdout
    done = call("eval", "tiny-shapes", *where, "--protocol", "paper", "--limit", 6, "--json")
    (found,) = json.loads(done.stdout)
    assert found["dataset"]["items"] == 6 and found["run"]["embedded_by_this_process"] == 0
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 3
    assert "6 items only" in (tmp_path / "out" / "report.md").read_text(), "the report is of all runs in the folder"


def test_results_go_to_a_folder_that_is_named_and_that_git_ignores(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("eval", "tiny-shapes", "--data-root", data, "--dry-run")
    assert not (tmp_path / "runs").exists(), "a dry run makes nothing"
    here = ("--data-root", data, "--cache", tmp_path / "cache", "--model", "tiny", "--limit", 2)
    done = call("eval", "tiny-shapes", *here)
    assert done.exit_code == 0 and str(tmp_path / "runs" / "eval") in done.stderr
    assert (tmp_path / "runs" / ".gitignore").read_text() == "*\n"
    (tmp_path / "runs" / ".gitignore").unlink()
    call("eval", "tiny-shapes", *here)
    call("eval", "tiny-shapes", *here, "-o", "mine/runs")
    assert not list(tmp_path.rglob(".gitignore")), "what somebody else made is left as it is"


def test_a_dry_run_says_what_and_where_and_loads_nothing(
    data: Path, tmp_path: Path, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a long path would be folded in the table
    done = call("eval", "tiny-shapes", "--data-root", data.name, "--dry-run", "--limit", 5, "-o", tmp_path / "out")
    assert done.exit_code == 0 and "4 classes, 3 prompts each" in done.stdout and "5 of 12" in done.stdout
    assert "data/tiny-shapes" in done.stdout
    assert known == [] and not (tmp_path / "out").exists()
    done = call("eval", "tiny-shapes", "--data-root", data, "--dry-run", "--task", "few-shot", "--json")
    assert json.loads(done.stdout)["runs"][0]["against"] == "4 classes, trained on train"


def test_all_takes_what_is_here_and_goes_on_after_a_failure(data: Path, tmp_path: Path) -> None:
    done = call("eval", "all", "--data-root", data, "-o", tmp_path / "out", "--cache", tmp_path / "cache", "--model", "tiny")
    assert done.exit_code == 1, "a dataset of a modality that the model does not have has failed"
    assert "tiny-elsewhere is left out" in done.stderr
    assert "tiny-sounds: model tiny has no modality 'audio'" in done.stderr
    assert len(list((tmp_path / "out").glob("*/result.json"))) == len(DATASETS)


def test_an_item_that_does_not_decode_ends_a_single_run(data: Path, tmp_path: Path) -> None:
    (data / "tiny-shapes" / "pictures" / "002.png").write_bytes(b"no picture")
    where = ("--data-root", data, "-o", tmp_path / "out", "--cache", tmp_path / "cache", "--model", "tiny")
    done = call("eval", "tiny-shapes", *where)
    assert done.exit_code == 2 and "002.png" in done.stderr and "Traceback" not in done.output
    done = call("eval", "tiny-shapes", *where, "--on-error", "skip")
    assert done.exit_code == 0 and "1 items skipped" in done.stdout
    assert "002.png" in (next((tmp_path / "out").glob("*/skipped.csv"))).read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny-shapes",), "--data-root"),
        (("tiny-shapes", "--data-root", "/nowhere"), "no such folder"),
        (("tiny-elsewhere", "--data-root", "."), "list.csv"),
        (("unknown", "--data-root", "."), "tiny-shapes"),
        (("tiny-shapes", "--data-root", ".", "--task", "guess"), "zero-shot, linear-probe or few-shot"),
        (("toybox", "--task", "linear-probe"), "zero-shot only"),
        (("toybox", "--split", "train"), "unseen_pairs"),
    ],
)
def test_wrong_calls_end_in_one_line(arguments: tuple[str, ...], said: str, known: list[str]) -> None:
    done = call("eval", *arguments)
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.output
    assert known == [], "nothing was loaded"


def test_prompts_from_a_file(data: Path, tmp_path: Path) -> None:
    lines = tmp_path / "mine.txt"
    lines.write_text("a drawing of a {}\n\n{} seen from above\n", encoding="utf-8")
    assert read_templates(lines) == ("a drawing of a {}", "{} seen from above")
    where = ("--data-root", data, "-o", tmp_path / "out", "--cache", tmp_path / "cache", "--model", "tiny", "--json")
    (found,) = json.loads(call("eval", "tiny-shapes", *where, "--prompts", lines).stdout)
    assert found["settings"]["prompts"]["from"] == str(lines) and found["settings"]["prompts"]["count"] == 2
    lines.write_text("no braces")
    with pytest.raises(InputError, match=r"mine\.txt.*no braces"):
        read_templates(lines)
    with pytest.raises(InputError, match=r"gone\.txt"):
        read_templates(tmp_path / "gone.txt")


def test_the_list_of_datasets(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("datasets")
    assert done.exit_code == 0 and "not looked for" in done.stdout and "VITLENS_DATA" in done.stdout
    monkeypatch.setenv("VITLENS_DATA", str(data))
    (data / "tiny-tags" / "list.csv").unlink()
    rows = {row["name"]: row for row in json.loads(call("datasets", "--json").stdout)}
    assert rows["tiny-shapes"]["state"] == f"here: {data / 'tiny-shapes'}" and rows["tiny-shapes"]["missing"] == []
    assert rows["tiny-tags"]["state"] == "incomplete"
    assert rows["tiny-tags"]["missing"][0]["path"].endswith("list.csv")
    assert rows["tiny-elsewhere"]["state"] == "not found"
    text = call("datasets").stdout
    assert "incomplete" in text and "CC0" in text


def test_the_card_of_one_dataset(data: Path) -> None:
    text = call("datasets", "tiny-shapes", "--data-root", data).stdout
    for said in ("Tiny shapes", f"test ({TEST}, default)", "list.csv", "CC0", "Another", "60", "here: "):
        assert said in text
    done = call("datasets", "nothing")
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit) and "unknown dataset" in done.stderr


def test_a_model_folder_goes_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert short(str(tmp_path / "mine")) == "mine" and short("vitlens-l") == "vitlens-l"
    (tmp_path / "my-run" / "model").mkdir(parents=True)
    assert short(str(tmp_path / "my-run" / "model")) == "my-run", "every run of `vitlens train` has a folder model"


def test_the_toybox_without_a_folder_is_planned_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitlens.benchmarks.evaluation import toybox
    from vitlens.benchmarks.evaluation.run import Settings

    monkeypatch.setattr(toybox, "get_dataset", lambda name: variant(Shapes, name=name, splits=dict.fromkeys(toybox.OBJECTS))())
    found = toybox.toybox_suite(None, Settings(cache=tmp_path / "cache"), make=False)
    assert {one.split for one in found} == set(toybox.OBJECTS) and not any(tmp_path.iterdir())
    with pytest.raises(OptionError, match="zero-shot only"):
        toybox.toybox_suite(None, Settings(task="few-shot"))


def test_a_labelled_table_of_ones_own_is_a_dataset(data: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in (data / "tiny-shapes" / "list.csv").read_text().splitlines()[1 : TEST + 1]]
    table = data / "mine.csv"
    lines = [f"tiny-shapes/pictures/{file},{kind},{place}," for place, (file, kind, _) in enumerate(rows)]
    table.write_text("\n".join(["image,kind,number,depth", *lines, "tiny-shapes/pictures/000.png,,,"]))
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cache", "--model", "tiny", "--json")
    done = call("eval", table, "--label", "kind", "--as", "image", *where)
    assert done.exit_code == 0, done.output
    (mine,) = json.loads(done.stdout)
    (same,) = json.loads(call("eval", "tiny-shapes", "--data-root", data, *where).stdout)
    assert mine["dataset"]["items"] == TEST
    assert mine["run"]["embedded_by_this_process"] and not same["run"]["embedded_by_this_process"], "kept by content"
    assert (tmp_path / "out" / "mine-image_all_tiny_zero-shot_default" / "per_class.csv").is_file()
    planned = json.loads(call("eval", table, "--label", "kind", "--as", "image", "--dry-run", "--json").stdout)["runs"][0]
    assert planned["notes"] == ["1 rows without a label are left out"] and planned["items"] == TEST


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "kind"], "columns of image, depth: say which is measured with --as"),
        ([], "no column 'label' with labels (its columns: image, depth, kind, one)"),
        (["--label", "image"], "a column with class names"),
        (["--label", "one", "--as", "image"], "names 1 classes"),
        (["--label", "kind", "--as", "audio"], "no column 'audio'"),
        (["--label", "kind", "--as", "image", "--split", "test"], "no split 'test'"),
        (["--label", "kind", "--as", "image", "--task", "few-shot"], "zero-shot only"),
    ],
)
def test_a_table_that_lacks_something_is_told_what(arguments: list[str], message: str, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("image,depth,kind,one\na.png,a.npy,disc,x\nb.png,b.npy,ring,x\n")
    done = call("eval", table, *arguments, "--dry-run")
    assert done.exit_code == 2 or done.exception is not None
    assert message in f"{done.output}{done.exception}"

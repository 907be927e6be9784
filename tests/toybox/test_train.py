"""The Toybox's whole training in miniature, and the weights that ship with the package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import vitlens
from vitlens.benchmarks.toybox import World
from vitlens.benchmarks.toybox.demo.evaluate import HELD_OUT, Results, evaluate, hit_rates
from vitlens.benchmarks.toybox.demo.tables import ablation_table, sensor_tables, time_table
from vitlens.benchmarks.toybox.sensors.drawn import draw
from vitlens.benchmarks.toybox.training import lenses, train
from vitlens.benchmarks.toybox.training.card import zoo_card
from vitlens.benchmarks.toybox.training.clip import ClipRecipe
from vitlens.benchmarks.toybox.training.lenses import ABLATIONS
from vitlens.benchmarks.toybox.training.recipes import ToyboxRecipe, Trained, stages
from vitlens.cards import PACKAGE
from vitlens.cli.app import app
from vitlens.errors import OptionError
from vitlens.facts import yaml_of
from vitlens.model import ViTLens
from vitlens.train.logs import read_csv
from vitlens.train.recipe import PatchOptions

CLIP = ClipRecipe(
    objects=64, clip_only=16, epochs=1, batch=32, warmup=1, width=64, layers=3, embed_dim=32, text_width=32, text_layers=1
)
TINY = ToyboxRecipe(
    clip=CLIP,
    sensors=("depth", "audio"),
    objects=32,
    epochs=1,
    ablation_epochs=1,
    batch_size=16,
    tokens=False,
    ablations=("shipped", "scratch"),
)
SMALL = {"test": 28, "unseen_pairs": 28, "unseen_shapes": 10}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    folder = tmp_path_factory.mktemp("toybox")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "HELD_OUT", SMALL)
        patch.setattr(train, "VALIDATION", 28)
        return folder, train.train_toybox(folder, TINY, workers=1)


def test_everything_is_trained_from_nothing(trained: tuple[Path, Trained]) -> None:
    folder, found = trained
    assert set(found.model.modalities) == {"image", "depth", "audio", "text", "video"}
    assert found.results.accuracy("audio", "test").classes == 8
    assert {a.classes for a in found.results.accuracies if a.split == "unseen_shapes" and a.sensor == "depth"} == {5, 33}
    assert {(r.query, r.gallery) for r in found.results.retrievals} >= {("audio", "depth"), ("text", "image")}
    assert list(found.ablations) == ["shipped", "scratch"]
    assert all(seconds > 0 for seconds in found.seconds.values())
    frozen = ViTLens.from_pretrained(str(folder / "clip" / "model"), device="cpu").encoders["image"].vit.state_dict()
    for part in ("blocks.2.attn.in_proj_weight", "blocks.2.mlp.c_fc.weight"):
        for place, same in {"lenses/audio": True, "ablations/scratch": False}.items():
            model = ViTLens.from_pretrained(str(folder / place / "model"), device="cpu")
            vit = next(iter(model.encoders[name] for name in ("audio", "depth") if name in model.encoders)).vit
            assert torch.equal(vit.state_dict()[part], frozen[part]) is same


def test_what_is_done_is_not_done_again(trained: tuple[Path, Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, found = trained

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(train, "train_clip", never)
    monkeypatch.setattr(train, "Trainer", never)
    monkeypatch.setattr(train, "evaluate", never)
    again = train.train_toybox(folder, TINY, workers=1)
    assert again.results == found.results
    other = ToyboxRecipe(clip=CLIP, objects=33)
    with pytest.raises(OptionError, match="other numbers"):
        train.train_toybox(folder, other)


def test_a_start_gives_the_clip_and_the_lenses_that_are_not_trained(
    trained: tuple[Path, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "VALIDATION", 28)
    monkeypatch.setattr(train, "HELD_OUT", SMALL)
    few = PatchOptions("readers", readers=1, reader_steps=1)
    monkeypatch.setitem(lenses.TOKENS, "audio", replace(lenses.SPEAKING, patches=few))
    start = str(trained[0] / "model")
    recipe = replace(TINY, sensors=("audio",), tokens=True, start=start, precision="fp32", ablations=())
    said = "draw 32 objects as audio sees them; train its lens for 1 epochs, with terms on its tokens"
    assert stages(recipe)[:2] == [f"load {start}", said]
    found = train.train_toybox(tmp_path, recipe, workers=1)
    log = read_csv(tmp_path / "lenses" / "audio" / "log.csv")
    assert {"class_state", "readers", "spread"} <= set(log[0])
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (start, tmp_path / "model"))
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all(".audio." in f".{key}" for key in changed), "the other lenses and the CLIP are the start's, bit by bit"
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "terms on its tokens" in card and "not named here, of " + start in card
    assert "terms on their tokens: audio" in zoo_card(recipe, found.results)["notes"][-1]


def test_a_start_trains_the_lenses_that_it_has(tmp_path: Path) -> None:
    clip = tmp_path / "model"
    vitlens.load("vitlens-toybox", modalities=["image", "depth", "text"]).save_pretrained(clip)
    said = CliRunner().invoke(app, ["toybox", "train", "--start", str(clip), "--dry-run"]).output.splitlines()
    assert [line.split()[4] for line in said if line.startswith("draw")] == ["depth"]
    assert "terms on its tokens" in said[1]


def test_a_start_has_no_ablations() -> None:
    with pytest.raises(OptionError, match="--no-ablations"):
        ToyboxRecipe(start="vitlens-toybox", ablations=("scratch",))


def test_tables_say_what_was_measured(trained: tuple[Path, Trained]) -> None:
    _, found = trained
    accuracy, retrieval = sensor_tables(found.results)
    row = next(row for row in accuracy.rows if row[0] == "depth")
    seen = found.results.accuracy("depth", "test")
    assert row[2] == f"{100 * seen.top1:.1f} / {100 * seen.top5:.1f}"
    assert row[-1] == "3.0 / 15.2"
    assert len(retrieval.rows) == 4
    assert "| scratch |" in ablation_table("depth", found.ablations, ABLATIONS).to_markdown()
    assert time_table({"a": 60, "b": 120}).rows[-1] == ("together", "3.0")
    assert Results.from_dict(json.loads(json.dumps(found.results.to_dict()))) == found.results


@pytest.mark.parametrize("wrong", [{"sensors": ("smell",)}, {"objects": 100}, {"epochs": 0}, {"ablations": ("nothing",)}])
def test_wrong_numbers_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="toybox"):
        ToyboxRecipe(**{"clip": CLIP, "objects": 32, **wrong})  # type: ignore[arg-type]


def test_hit_rates_count_the_first_and_the_first_five() -> None:
    scores = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [1, 9, 8, 7, 6, 5, 0], [0, 1, 2, 3, 4, 5, 6]])
    assert hit_rates(scores, torch.tensor([0, 5, 0])) == pytest.approx((1 / 3, 2 / 3))


def test_what_is_drawn_is_drawn_once(tmp_path: Path) -> None:
    first = draw(tmp_path, World(), "test", 3, ["image", "eeg"])
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    again = draw(tmp_path, World(), "test", 3, ["image", "eeg"])
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    assert (first[2]["image"] == again[2]["image"]).all()
    item = first.items(1)["eeg"]
    assert item["unit"] == "uV"
    assert 1 < float(abs(item["source"]).std()) < 200


TOYBOX = PACKAGE / "benchmarks" / "toybox" / "weights"


class TestShipped:
    """The weights in the package."""

    def test_the_zoos_card_says_what_was_measured(self) -> None:
        results = Results.from_dict(json.loads((TOYBOX / "results.json").read_text(encoding="utf-8")))
        assert yaml_of(TOYBOX / "card.yaml") == zoo_card(ToyboxRecipe(), results)

    def test_small_enough_and_with_a_card(self) -> None:
        assert (TOYBOX / "model.safetensors").stat().st_size < 25e6
        readme = (TOYBOX / "README.md").read_text(encoding="utf-8")
        assert "seed 0" in readme and "vitlens toybox train" in readme
        assert "Zero-shot classification" in readme

    def test_the_table_holds_on_a_small_sample(self, tmp_path: Path) -> None:
        """Re-measured on the first objects of every split: within what chance allows a sample of that size."""
        table = Results.from_dict(json.loads((TOYBOX / "results.json").read_text(encoding="utf-8")))
        sample = {"test": 56, "unseen_pairs": 28, "unseen_shapes": 20}
        assert set(sample) == set(HELD_OUT)
        found = evaluate(vitlens.load("vitlens-toybox", device="cpu"), tmp_path, counts=sample, workers=1)
        assert len(found.accuracies) == len(table.accuracies)
        for now in found.accuracies:
            shipped = table.accuracy(now.sensor, now.split, now.label, among=now.classes)
            spread = 3.5 * max(shipped.top1 * (1 - shipped.top1) / now.items, (0.5 / now.items) ** 2) ** 0.5 + 1 / now.items
            assert abs(now.top1 - shipped.top1) <= spread, (now, shipped)
        assert now.items == 20

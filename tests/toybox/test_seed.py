"""The Toybox's SEED: trained on pictures in miniature, and run by SEED-LLaMA's adapter as it is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import vitlens
from vitlens.adapters.seed.llama import SeedLlamaAdapter
from vitlens.benchmarks.toybox import MATERIALS, World, observe
from vitlens.benchmarks.toybox.demo import compose
from vitlens.benchmarks.toybox.demo.compose import (
    OWN,
    colour_share,
    compose_split,
    describe_codes,
    has_seed,
    seed_adapter,
    sensed,
    tell_split,
)
from vitlens.benchmarks.toybox.demo.edits import SENSORS as SHOWN
from vitlens.benchmarks.toybox.demo.edits import edited, edits_figure
from vitlens.benchmarks.toybox.demo.generated import Generated
from vitlens.benchmarks.toybox.demo.lookup import Lookup
from vitlens.benchmarks.toybox.demo.paint import mixed_with, painting_decoder
from vitlens.benchmarks.toybox.demo.tables import composed_table
from vitlens.benchmarks.toybox.sensors.drawn import Drawn, draw
from vitlens.benchmarks.toybox.training.clip import normalised
from vitlens.benchmarks.toybox.training.host import answer
from vitlens.benchmarks.toybox.training.picture_task import pacing
from vitlens.benchmarks.toybox.training.seed_language_task import LanguageTask, train_seed
from vitlens.benchmarks.toybox.training.seed_networks import (
    QUANTIZER,
    SeedRecipe,
    build_language,
    build_quantizer,
    load_quantizer,
    save_seed,
    seed_tokenizer,
)
from vitlens.benchmarks.toybox.training.seed_quantizer_task import Quantizing
from vitlens.benchmarks.toybox.training.seed_tasks import STORY, EditedWorld, donors, edit_of
from vitlens.benchmarks.toybox.world.captions import TEMPLATES, captions, describe
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.model import ViTLens

FEW = pacing(16, 12, lr=3e-3, warmup=2, precision="fp32")
TINY = SeedRecipe(FEW, FEW, queries=4, codes=16, code_width=4, hidden=32, layers=1, width=32, language_layers=1)
SENSORS = ("image", "point_cloud", "audio", "tactile", "thermal")


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load("vitlens-toybox")


@pytest.fixture(scope="module")
def things() -> list[ToyObject]:
    return World().objects("train", 24)


@pytest.fixture(scope="module")
def trained(model: ViTLens, things: list[ToyObject], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("seed")
    seen, edited = (_pictures(world.objects("train", 24)) for world in (World(), EditedWorld()))
    return save_seed(home / "kept", *train_seed(home / "run", model, seen, edited, things, World(), TINY))


@pytest.fixture(scope="module")
def adapter(model: ViTLens, trained: Path) -> SeedLlamaAdapter:
    return seed_adapter(model, trained)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return draw(tmp_path_factory.mktemp("drawn"), World(), "test", 6, SENSORS, workers=1)


def _pictures(things: list[ToyObject]) -> np.ndarray:
    return np.stack([observe(thing, ["image"])["image"] for thing in things])


def test_its_eye_is_the_clips(model: ViTLens, things: list[ToyObject]) -> None:
    """SEED's layout and SEED's normalisation of pictures, and yet the same states."""
    quantizer = build_quantizer(TINY, model)
    pictures = _pictures(things[:2])
    tower: Any = model.tower("image")
    own = tower.vit.forward_tokens(tower.lens(tower.embed(normalised(torch.from_numpy(pictures)))))
    pixels = quantizer.preprocess([{"source": picture} for picture in pictures])
    assert torch.allclose(quantizer.visual_encoder(pixels), own, atol=1e-4)
    spliced = quantizer.tower()
    assert torch.allclose(spliced.hidden(spliced.image_tokens(pixels)), own, atol=1e-4)
    assert quantizer.space == model.space


def test_it_learns_what_the_adapter_runs(model: ViTLens) -> None:
    """Queries and decoder with gradients are the published ones, and a training goes through the codebook's codes."""
    quantizer = build_quantizer(TINY, model)
    hidden = torch.randn(3, 65, 192)
    codes = quantizer.encode_hidden(hidden)
    assert torch.equal(quantizer.nearest(quantizer.vectors(hidden)), codes)
    network = Quantizing(quantizer).train()
    assert torch.allclose(network(hidden)["embedding"], quantizer.decode(codes), atol=1e-5)
    assert int(network.taken.sum()) == codes.numel()
    dead = network.taken == 0
    before = network.table.detach().clone()
    network.revive()
    assert torch.equal(network.table[~dead], before[~dead]) and torch.equal(
        network.table[dead], network.lately[: int(dead.sum())]
    )
    frozen = {name for name, p in quantizer.named_parameters() if id(p) not in {id(one) for one in quantizer.learned()}}
    assert all(name.startswith(("visual_encoder.", "blocks.", "pos_embed")) for name in frozen) and "pos_embed" in frozen


def test_both_trainings_learn_and_are_small(model: ViTLens, trained: Path) -> None:
    for part in ("quantizer", "language"):
        lines = (trained.parent / "run" / part / "log.csv").read_text(encoding="utf-8").splitlines()
        losses = [float(line.split(",")[lines[0].split(",").index("loss")]) for line in lines[1:]]
        assert losses[-1] < losses[0] - 0.1, part
    recipe = SeedRecipe()
    numbers = [
        p.numel() for name, p in build_quantizer(recipe, model).named_parameters() if not name.startswith("visual_encoder.")
    ]
    assert 2 * (sum(numbers) + build_language(recipe)[0].num_parameters()) < 4e6, "bytes in float16"


def test_what_is_kept_is_opened_by_the_adapter(model: ViTLens, trained: Path, adapter: SeedLlamaAdapter, drawn: Drawn) -> None:
    from safetensors.torch import load_file

    kept = load_file(trained / QUANTIZER)
    assert not any(key.startswith("visual_encoder.") for key in kept), "the ViT is the model's"
    assert {value.dtype for value in (*kept.values(), *load_file(trained / "model.safetensors").values())} == {torch.float16}
    assert has_seed(trained) and not has_seed(trained.parent)
    assert set(adapter.streams) == {"image", "video", "codes", *(name for name in model.modalities if name in compose.ASKED)}
    item = drawn.column("image")[0]
    [codes] = adapter.senses.codes({"image": item})
    picture = torch.from_numpy(np.array(item["source"]))[None]
    tower: Any = model.tower("image")
    hidden = tower.vit.forward_tokens(tower.embed(normalised(picture)))
    assert torch.equal(load_quantizer(trained, model).encode_hidden(hidden)[0], codes)


def test_it_learns_on_the_way_it_is_asked_later(
    adapter: SeedLlamaAdapter, model: ViTLens, things: list[ToyObject], tmp_path: Path
) -> None:
    task = LanguageTask(tmp_path, model, build_quantizer(TINY, model), (), things, World(), TINY)
    task.codes = torch.randint(16, (2, 2, 24, 4), generator=torch.Generator().manual_seed(0))
    task.look_up_in(torch.eye(128)[:24], defaultdict(lambda: torch.eye(128)[3]))
    first, second = task.codes[0, 0, 0], task.codes[1, 1, 5]
    message: list[Any] = [first, second, "show the first in the material of the second"]
    ids = adapter.language.ids(adapter.prompt(message))
    assert task.prompt([first.tolist(), second.tolist(), message[2]]) == ids
    assert task.prompt(["draw a red mug"]) == adapter.language.ids(adapter.prompt("draw a red mug"))
    begun = [(item := task[epoch, row]).inputs["line"][int(item.inputs["asked"])] for epoch in range(3) for row in range(24)]
    share = sum(int(token) == task.vocabulary.begin for token in begun) / len(begun)
    assert 0.4 < share < 0.8, "six replies of ten are pictures"
    words = seed_tokenizer(4)
    said = [task[epoch, row].inputs["line"] for epoch in range(3, 6) for row in range(24)]
    assert not any((ids == words.unk_token_id).any() for ids in said) and "{" not in words.get_vocab()
    every = [line for thing in World().objects("train", 200) for line in captions(thing)[:8]]
    assert not [line for line in every if words.unk_token_id in words(line).input_ids]


def test_it_learns_to_look_things_up_as_it_is_shown_them_later(
    adapter: SeedLlamaAdapter, model: ViTLens, things: list[ToyObject], tmp_path: Path
) -> None:
    """The same neighbours, as the same ids, in the training and in an index; never the thing itself in the training."""
    quantizer: Any = adapter.quantizer
    task = LanguageTask(tmp_path, model, quantizer, (), things, World(), TINY)
    known = draw(tmp_path / "drawn", World(), "train", 24, ["image"], workers=1)
    codes = sensed(adapter, known, "image")
    task.codes = torch.stack(codes).expand(2, 2, -1, -1)
    seen = model.encode({"image": known.column("image")})["image"]
    task.look_up_in(seen, defaultdict(lambda: seen[3]))
    lookup = Lookup(model, known, codes)
    for row in range(6):
        about = task.embeddings[0, 0, row]
        found, near = lookup.before(about), task.neighbours(about, row=24)
        assert [part if isinstance(part, str) else part.tolist() for part in found] == list(near) and len(near) == 4
        message = [*found, codes[row], "what is this?"]
        assert task.prompt((*near, codes[row].tolist(), "what is this?")) == adapter.language.ids(adapter.prompt(message))
        itself = describe(things[row], TEMPLATES[0])
        others = [describe(thing, TEMPLATES[0]) for place, thing in enumerate(things) if place != row]
        assert itself in others or itself not in task.neighbours(seen[row], row)
    shown = 0
    for epoch in range(40):
        items = [task[epoch, row] for row in range(4)]
        looked_up = bool(items[0].inputs["looked_up"])
        longest = max(len(item.inputs["longer_line" if looked_up else "line"]) for item in items)
        batch = task.collate(items)
        assert batch.inputs["line"].shape == (4, longest) and set(batch.inputs) == {"line", "asked"}
        shown += looked_up
    assert 3 <= shown <= 18, "a quarter of the batches looks things up"


def test_a_story_names_each_thing_in_its_place(
    model: ViTLens, adapter: SeedLlamaAdapter, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {name: sensed(adapter, drawn, name) for name in ("point_cloud", "audio", "tactile")}
    after = mixed_with(drawn.things)

    def reply(thing: ToyObject, line: str) -> str:
        return line.format(answer(thing, "everything"))

    def told(_: object, messages: list[Any], **options: Any) -> list[Any]:
        rows = [(first, second, after[second]) for first, second in enumerate(after)]
        for own, message in zip(rows, messages, strict=True):
            places = zip(message[:3], ("point_cloud", "audio", "tactile"), own, strict=True)
            assert all(torch.equal(part, codes[sensor][row]) for part, sensor, row in places)
        lines = [[reply(drawn.things[row], line) for row, line in zip(own, STORY, strict=True)] for own in rows]
        return [SimpleNamespace(text=", ".join([own[0], own[2], own[1]] if number else own)) for number, own in enumerate(lines)]

    monkeypatch.setattr(compose, "converse", told)
    found = tell_split(adapter, codes, drawn, "test")
    assert found[0].right == 1, "the first thing is named first in every story"
    assert all(1 / 6 <= row.right < 1 for row in found[1:]), "the others in one story, where nothing else is alike by chance"


def test_edits_change_the_thing_and_nothing_else(things: list[ToyObject]) -> None:
    world = World()
    edits = [edit_of(thing, world) for thing in things]
    assert {edit.thing.material == thing.material for edit, thing in zip(edits, things, strict=True)} == {True, False}
    seen = world.pairs("train")
    for thing, edit in zip(things, edits, strict=True):
        assert replace(edit.thing, material=thing.material, colour=thing.colour) == thing and edit.thing != thing
        assert (edit.thing.shape, edit.thing.material) in seen, "no edit shows a pair that is kept out of training"
        assert edit.thing.colour in MATERIALS[edit.thing.material].colours
        assert EditedWorld().object("train", thing.index) == edit.thing
    before, after = _pictures([things[0]])[0], _pictures([edits[0].thing])[0]
    assert (before[0] == after[0]).all() and (before != after).any(), "the wall behind it stays"
    assert all(edits[0].thing != things[i] for i in donors(things).get((things[0].material, "no such colour"), [0]))


def test_any_sensor_is_described_edited_and_composed(model: ViTLens, trained: Path, drawn: Drawn) -> None:
    adapter = seed_adapter(model, trained, pixels=painting_decoder(model))
    scan, sound = drawn.column("point_cloud")[0], drawn.column("audio")[0]
    said = adapter.describe({"point_cloud": scan}, "what is this?", max_new_tokens=4, temperature=0)
    assert said.codes == [] and set(said.text.split()) <= set(adapter.tokenizer.get_vocab())
    made = adapter.edit({"point_cloud": scan}, "make it of wood", temperature=0)
    assert made.codes[0].shape == (4,) and made.pictures[0].size == (64, 64)
    assert made.embeddings[0].shape == (model.space.dim,)
    both = adapter.combine([{"point_cloud": scan}, {"audio": sound}], compose.COMPOSE[0], draw=False, temperature=0)
    assert both.codes[0].shape == (4,) and both.pictures == ()


def test_everything_is_measured(
    model: ViTLens, adapter: SeedLlamaAdapter, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every task of every sense that it is for, with what pictures reach beside it; the painter is left out here."""
    codes = {name: sensed(adapter, drawn, name) for name in SENSORS}
    described = describe_codes(adapter, codes, drawn, "test")
    assert {(row.sensors, row.label) for row in described} >= {("image", "material"), ("thermal", "shape"), ("audio", "material")}
    assert all(row.look == "codes" and row.items == 6 for row in described)
    monkeypatch.setattr(compose, "paint", lambda _, rows, progress: np.zeros((len(rows), 64, 64, 3), np.uint8))
    found = compose_split(adapter, painting_decoder(model), model, codes, drawn, World())
    rows = {(row.task, row.sensors, row.label): row for row in found}
    assert len(rows) == len(found)
    for task, sense, label in (
        ("codes", "audio", "material"),
        ("words", "caption", "colour"),
        ("material", "point_cloud", "material"),
        ("colour", "image", "colour"),
        ("colour", OWN, "colour"),
        ("composition", "point_cloud+audio", "shape"),
        ("composition", OWN, "material"),
    ):
        assert (task, sense, label) in rows
    assert rows["material", "image", "shape"].items + rows["colour", "image", "shape"].items == 6
    known = draw(tmp_path, World(), "train", 8, ["image"], workers=1)
    lookup = Lookup(model, known, sensed(adapter, known, "image"))
    looked_up = describe_codes(adapter, codes, drawn, "test", lookup=lookup)
    assert [replace(row, neighbours=0, right=0) for row in looked_up] == [replace(row, right=0) for row in described]
    assert {row.neighbours for row in looked_up} == {2}
    told = tell_split(adapter, codes, drawn, "test", lookup=lookup)
    assert [(row.sensors, row.label, row.neighbours) for row in told[3:]] == [
        ("point_cloud+audio+tactile", label, 2) for label in ("1: shape", "2: material", "3: material")
    ]
    assert [row.label for row in told[:3]] == ["1: shape", "2: shape", "3: shape"]
    beside = compose_split(adapter, painting_decoder(model), model, codes, drawn, World(), lookup=lookup)
    prompted = [row for row in found if row.task != "codes" and row.sensors != OWN]
    assert [(row.task, row.sensors, row.label) for row in beside] == [(row.task, row.sensors, row.label) for row in prompted]
    assert {row.neighbours for row in beside} == {2} and {row.neighbours for row in found} == {0}
    table = composed_table([*found, *beside])
    assert len(table.rows) == len(found) and table.rows[0][:3] == ("painted from its codes", "image", "shape")
    assert table.rows[0][4] == "-" and sum(row[4] != "-" for row in table.rows) == len(beside)
    kept = Generated(described, [], [*found, *beside])
    assert Generated.from_dict(kept.to_dict()) == kept


def test_the_figure_shows_what_is_made_of_what_was_measured(model: ViTLens, adapter: SeedLlamaAdapter, tmp_path: Path) -> None:
    drawn = draw(tmp_path, World(), "test", 2, SHOWN, workers=1)
    rows = edited(adapter, painting_decoder(model), drawn, World())
    assert [[panel.head for panel in row][:2] for row in rows] == [
        [name, "painted from its codes"] for name in ("point cloud", "depth")
    ]
    assert all(row[2].head == edit_of(thing, World()).asked[0] for row, thing in zip(rows, drawn.things, strict=True))
    assert (rows[0][-1].picture == drawn[0]["image"]).all() and (rows[0][3].picture == rows[1][3].picture).mean() < 1
    assert len(edits_figure(rows).axes) == 12


def test_colours_are_judged_among_those_of_the_material(model: ViTLens, things: list[ToyObject]) -> None:
    pictures = _pictures(things)
    right, chance = colour_share(model, pictures, things)
    assert right > 0.7 and 0.15 < chance < 0.3
    others = [replace(t, colour=next(c for c in MATERIALS[t.material].colours if c != t.colour)) for t in things]
    assert colour_share(model, pictures, others)[0] < 0.3


def test_the_shipped_one_describes_and_edits_what_it_never_saw(model: ViTLens, drawn: Drawn) -> None:
    adapter = seed_adapter(model, pixels=painting_decoder(model))
    codes = {name: sensed(adapter, drawn, name) for name in ("image", "point_cloud", "audio")}
    rows = {(row.sensors, row.label): row for row in describe_codes(adapter, codes, drawn, "test")}
    assert all(rows[key].right >= 0.6 for key in (("image", "shape"), ("point_cloud", "shape"), ("audio", "material")))
    scan, sound = drawn.column("point_cloud")[0], drawn.column("audio")[1]
    made = adapter.edit({"point_cloud": scan}, "make it of wood", temperature=0)
    assert made.pictures[0].size == (64, 64) and "wood" in adapter.describe({"codes": made.codes[0]}, temperature=0).text
    both = adapter.combine([{"point_cloud": scan}, {"audio": sound}], compose.COMPOSE[0], temperature=0)
    assert both.pictures[0].size == (64, 64)

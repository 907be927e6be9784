"""The Toybox's hosts and painter: trained on pictures alone, in miniature; and what the shipped ones make of other sensors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

import vitlens
from vitlens.adapters.chat.llava_prompt import conversation
from vitlens.adapters.generate.any_to_any import AnyToAny
from vitlens.benchmarks.toybox import World
from vitlens.benchmarks.toybox.demo import describe, generated
from vitlens.benchmarks.toybox.demo.attention import class_shares
from vitlens.benchmarks.toybox.demo.describe import ANSWERING, ask, describe_split, naming_right, talking_host, talking_llava
from vitlens.benchmarks.toybox.demo.generated import Generated
from vitlens.benchmarks.toybox.demo.paint import mixed_with, paint, painting_decoder
from vitlens.benchmarks.toybox.demo.tables import DESCRIBED, generator_tables
from vitlens.benchmarks.toybox.sensors import drawn as sensors_drawn
from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
from vitlens.benchmarks.toybox.sensors.drawn import draw
from vitlens.benchmarks.toybox.training import generators
from vitlens.benchmarks.toybox.training.clip import normalised
from vitlens.benchmarks.toybox.training.generators import train_generators
from vitlens.benchmarks.toybox.training.host import HOST_FOLDERS, IMAGE, QUESTIONS, HostKind, HostRecipe, answer, tokenizers
from vitlens.benchmarks.toybox.training.host_task import HostTask, behind_eye
from vitlens.benchmarks.toybox.training.painter import PainterRecipe
from vitlens.benchmarks.toybox.training.picture_task import pacing
from vitlens.benchmarks.toybox.training.recipes import GeneratorsRecipe
from vitlens.cli.app import app
from vitlens.errors import OptionError
from vitlens.model import ViTLens

ONCE = pacing(1, 16, warmup=1)
HOST = HostRecipe(pace=ONCE, width=32, queries=2, qformer_layers=1, language_layers=1)
TINY = GeneratorsRecipe(
    objects=16,
    clip_only=4,
    hosts=(HOST, replace(HOST, kind="llava")),
    composer=None,
    painter=PainterRecipe(
        autoencoder=ONCE,
        drawing=pacing(1, 16, warmup=1, average=0.9),
        autoencoder_channels=(8, 8, 8),
        drawing_channels=(16, 16),
    ),
)
SMALL = {"test": 2, "unseen_pairs": 1, "unseen_shapes": 1}


@pytest.fixture(scope="module")
def model() -> ViTLens:
    return vitlens.load("vitlens-toybox")


@pytest.fixture(scope="module")
def trained(model: ViTLens, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Generated]:
    folder = tmp_path_factory.mktemp("generators")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated, "has_seed", lambda folder: False)  # tests/toybox/test_seed.py measures one
        return folder, train_generators(folder, model, TINY, counts=SMALL, workers=1)  # type: ignore[arg-type]


def test_all_are_trained_kept_and_measured(trained: tuple[Path, Generated], model: ViTLens) -> None:
    folder, found = trained
    kept = json.loads((folder / "generators" / "generators.json").read_text(encoding="utf-8"))
    assert Generated.from_dict(kept) == found
    card = (folder / "generators" / "generators.md").read_text(encoding="utf-8")
    assert "20 pictures" in card and "| image | shape |" in card
    rows = {(row.sensors, row.label) for row in found.described}
    assert rows >= {("image", "shape"), ("image", "material"), ("audio", "material"), ("depth", "shape"), ("eeg", "shape")}
    assert {row.sensors for row in found.painted} >= {*(name for name in SENSORS if model.supports(name)), "point_cloud+audio"}
    assert {row.split for row in found.described} == set(SMALL)
    tables = generator_tables(found)
    assert [table.title for table in tables][:4] == [*list(DESCRIBED.values())[:3], "What is painted"]
    assert all(f"### {table.title}" in card for table in tables)
    pictures = {row.look for row in found.described if row.sensors == "image"}
    assert pictures >= {"all", "patches"}
    table = tables[0]
    assert table.rows[0][:2] == ("image", "shape")
    assert table.rows[0][-1] == "3.0"


def test_what_is_trained_is_not_trained_again(
    trained: tuple[Path, Generated], model: ViTLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = trained
    for name in ("train_host", "train_painter"):
        monkeypatch.setattr(generators, name, None)
    monkeypatch.setattr(generators, "measure_generators", lambda *args, **options: found)
    assert train_generators(folder, model, TINY, counts=SMALL, workers=1) == found  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="clip_only"):
        GeneratorsRecipe(clip_only=0)
    with pytest.raises(OptionError, match="one of a kind, found instructblip, instructblip"):
        GeneratorsRecipe(hosts=(HOST, HOST))


def test_the_others_may_be_left_alone(trained: tuple[Path, Generated], model: ViTLens, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, found = trained
    told: dict[str, object] = {}
    monkeypatch.setattr(generators, "measure_generators", lambda *_, **options: told.update(options) or found)
    train_generators(folder, model, replace(TINY, hosts=TINY.hosts[1:], painter=None), workers=1)
    assert told["hosts"] == {"llava": folder / "generators" / "llava"} and "painter" not in told
    card = (folder / "generators" / "generators.md").read_text(encoding="utf-8")
    assert "The InstructBLIP: the shipped one." in card and "The painter: the shipped one." in card
    options = ["-n", "6", "--epochs", "3", "--no-painter", "--dry-run"]
    said = CliRunner().invoke(app, ["toybox", "hosts", *options]).output.splitlines()
    assert said[0].startswith("draw 7 pictures") and all(": 3 epochs" in line for line in said[1:3]) and len(said) == 4
    assert said[3].startswith("a tiny SEED-LLaMA: tokenizer 8 epochs, LLaMA 6 epochs")
    said = CliRunner().invoke(app, ["toybox", "hosts", *options, "--host", "llava"]).output.splitlines()
    assert said[1].startswith("a tiny LLaVA") and len(said) == 2
    wrong = CliRunner().invoke(app, ["toybox", "hosts", "--alone", "2"])
    assert wrong.exit_code == 2 and "--alone" in wrong.output
    wrong = CliRunner().invoke(app, ["toybox", "hosts", "--dry-run", "--host", "gpt"])
    assert wrong.exit_code == 2 and "'gpt'; known: instructblip, llava, seed" in wrong.output


def test_hosts_without_weights_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(describe.SHIPPED, "llava", tmp_path)
    assert list(describe.shipped_hosts()) == ["instructblip"]
    (tmp_path / "model.safetensors").touch()
    assert describe.shipped_hosts() == describe.SHIPPED


@pytest.mark.parametrize("kind", get_args(HostKind))
def test_a_host_learns_on_the_way_it_is_asked_later(
    kind: HostKind, trained: tuple[Path, Generated], model: ViTLens, tmp_path: Path
) -> None:
    """The training's loss is the adapter's, of the same picture, question and answer."""
    talking = talking_llava if kind == "llava" else talking_host
    host: Any = talking(model, trained[0] / "generators" / HOST_FOLDERS[kind])
    thing = World().object("train", 7)
    picture = np.array(draw(trained[0] / "drawn", World(), "train", 16, ["image"]).arrays["image"][0][:1])
    once = pacing(1, 1)
    task = HostTask(tmp_path, model, torch.from_numpy(picture), [thing], replace(HOST, kind=kind, pace=once, alone=0.0))
    task.network = behind_eye(host.model, host.tokenizer, getattr(host, "qformer_tokenizer", None))
    with torch.no_grad():
        task.seen = task.network.see(normalised(task.pictures)).expand(2, 1, -1, -1)
        for epoch in range(3):
            item = task[epoch, 0]
            asked, line = int(item.inputs["asked"]), item.inputs["line"].tolist()
            every = [question for questions, _ in QUESTIONS.values() for question in questions]
            [question] = [one for one in every if task.network.ids(task.network.prompt(one)) == line[:asked]]
            said = host.tokenizer.decode(line[asked:], skip_special_tokens=True)
            batch = HostTask.collate([item])
            loss = task.loss(task.network(**batch.inputs), batch.targets)
            assert loss == pytest.approx(float(host.loss(question, {"image": picture[0]}, said)), rel=1e-4)


def test_questions_and_answers_need_no_unknown_word() -> None:
    speaker, reader = tokenizers("instructblip")
    talker, none = tokenizers("llava")
    assert none is None
    thing = World().object("train", 7)
    for topic, (questions, _) in QUESTIONS.items():
        for text in (*questions, answer(thing, topic)):
            assert speaker.unk_token_id not in speaker(text).input_ids, text
            assert reader.unk_token_id not in reader(text).input_ids, text
            assert talker.unk_token_id not in talker(conversation([f"{IMAGE}\n{text}"], [], talker, "llava-1.5")).input_ids, text


def test_naming_right_means_naming_it_and_no_other() -> None:
    thing = next(t for t in World().objects("test", 60) if t.shape == "chair" and t.material != "wood")
    assert naming_right("a small red chair made of wood", thing, "shape")
    assert not naming_right("a small red chair made of wood", thing, "material")
    assert not naming_right("a chair or a table", thing, "shape")
    assert not naming_right("an armchair", thing, "shape")


# --- what ships --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> object:
    return draw(tmp_path_factory.mktemp("drawn"), World(), "test", 28, list(SENSORS))


TOLD = (
    ("image", "shape"),
    ("point_cloud", "shape"),
    ("depth", "shape"),
    ("tactile", "material"),
    ("audio", "material"),
)
"""What pictures, and the lenses of these sensors, tell nearly as well as anything; chance is 3 % and 12.5 %."""


def test_the_shipped_host_describes_what_it_never_saw(model: ViTLens, drawn: object) -> None:
    found = {(row.sensors, row.label): row.right for row in describe_split(talking_host(model), drawn, "test", look="all")}  # type: ignore[arg-type]
    for sensor, label in TOLD:
        assert found[sensor, label] > 0.75, sensor
    assert found["eeg", "shape"] > 0.4


def test_the_shipped_llava_describes_what_it_never_saw(model: ViTLens, drawn: object) -> None:
    host, question = talking_llava(model), QUESTIONS["everything"][0][0]
    for sensor, label in TOLD:
        answers = ask(host, question, {sensor: drawn.column(sensor)})  # type: ignore[attr-defined]
        right = [naming_right(text, thing, label) for text, thing in zip(answers, drawn.things, strict=True)]  # type: ignore[attr-defined]
        assert np.mean(right) > 0.55, sensor


def test_the_hosts_image_path_is_transformers_own(model: ViTLens, drawn: object) -> None:
    host = talking_host(model)
    items = drawn.column("image")[:4]  # type: ignore[attr-defined]
    question = QUESTIONS["everything"][0][0]
    pictures = [np.array(item["source"]) for item in items]
    pixels = host.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    read = host.qformer_tokenizer([question] * 4, return_tensors="pt")
    with torch.inference_mode():
        own = host.model.get_image_features(
            pixels, qformer_input_ids=read.input_ids, qformer_attention_mask=read.attention_mask
        ).pooler_output
        ours = host.soft_tokens([question] * 4, {"image": items})
    assert torch.equal(own, ours)
    assert ask(host, question, {"image": items}, batch=3) == host.generate([question] * 4, {"image": items}, **ANSWERING)


def test_where_the_host_looks_is_told(drawn: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at the class token of a depth map as it does at a picture's (docs/tokens.md)."""
    monkeypatch.setattr(sensors_drawn, "draw", lambda *_, **__: drawn)
    done = CliRunner().invoke(
        app, ["toybox", "attention", "-o", str(tmp_path / "seen.png"), "-n", "28", "--folder", str(tmp_path)]
    )
    if done.exception is not None:
        raise done.exception
    with PIL.Image.open(tmp_path / "seen.png") as figure:
        assert figure.size[0] > 400
    found = {
        line.split()[0]: float(line.split()[-1])
        for line in done.output.splitlines()
        if line.split()[:1] in (["image"], ["depth"])
    }
    assert found["image"] > 20 and found["depth"] == pytest.approx(found["image"], abs=15)
    wrong = CliRunner().invoke(app, ["toybox", "attention", "-o", str(tmp_path / "seen.bmp")])
    assert wrong.exit_code == 2 and "the type must be" in " ".join(wrong.output.split())


def test_what_is_recorded_is_what_the_host_attends_with(model: ViTLens, drawn: object) -> None:
    host = talking_host(model, look="all")
    items = drawn.column("depth")[:3]  # type: ignore[attr-defined]
    before = host.soft_tokens(["what is this?"] * 3, {"depth": items})
    shares = class_shares(host, {"depth": items})
    assert len(shares) == 3 and all(0 < share < 1 for share in shares)
    assert torch.equal(before, host.soft_tokens(["what is this?"] * 3, {"depth": items})), "recording leaves no trace"
    alone = class_shares(talking_host(model, look="class_token"), {"depth": items})
    assert alone == pytest.approx([1, 1, 1])


def test_the_shipped_painter_draws_what_was_scanned(model: ViTLens, drawn: object) -> None:
    decoder = painting_decoder(model)
    items = drawn.column("point_cloud")[:6]  # type: ignore[attr-defined]
    embeddings = model.encode({"point_cloud": items})["point_cloud"]
    pictures = paint(decoder, embeddings)
    assert pictures.shape == (6, 64, 64, 3)
    assert (pictures == paint(decoder, embeddings, batch=4)).mean() > 0.99  # other batches, other rounding
    assert not (pictures == paint(decoder, embeddings, seed=100)).all()
    seen = model.encode({"image": list(pictures)})["image"]
    own, others = F.cosine_similarity(seen, embeddings), F.cosine_similarity(seen, embeddings.roll(1, 0))
    assert own.mean() > others.mean() + 0.1


def test_the_painter_is_an_ordinary_decoder(model: ViTLens, drawn: object, tmp_path: Path) -> None:
    decoder = painting_decoder(model)
    imagine = AnyToAny(model, decoders=[decoder])
    items = {name: drawn.column(name)[3] for name in ("depth", "audio")}  # type: ignore[attr-defined]
    [made] = imagine.generate(items, [str(tmp_path / "mixture.png")], weights={"depth": 3, "audio": 1}, progress=False)
    assert made.bridge == "embedding"
    assert made.value.size == (64, 64)
    assert (tmp_path / "mixture.png").stat().st_size > 1000


def test_mixtures_are_of_different_things() -> None:
    things = World().objects("test", 40)
    others = mixed_with(things)
    assert all(things[i].shape != things[j].shape and things[i].material != things[j].material for i, j in enumerate(others))

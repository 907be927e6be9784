"""Recipes: what trains is what the published commands train (or differs as stated), and mistakes are named."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from vitlens.cards import all_cards
from vitlens.checkpoint import import_official
from vitlens.cli.app import app
from vitlens.errors import OptionError
from vitlens.train import LensTask, load_recipe, parameter_table, shipped_recipes
from vitlens.train.optimizer import MovingAverage, build_optimizer, rate_at, warmup_of
from vitlens.train.options import OptimizerOptions, ScheduleOptions
from vitlens.train.parameters import ParameterTable
from vitlens.train.recipe import Recipe
from vitlens.train.recipe_files import recipe_yaml
from vitlens.train.start import anchor_spec, encoder_spec

LOCKED = "__if_all_three_lock_flags_were_added"
# Recipe -> (entry of trainable_params.json, layout, processes of the published run, zoo card with the same encoder)
PUBLISHED = {
    "vitlens-l-pc-shapenet": ("pc_shapenet" + LOCKED, "tri_tower", 16, "vitlens-l-pc-shapenet"),
    "vitlens-l-pc-objaverse": ("pc_objaverse" + LOCKED, "tri_tower", 16, "vitlens-l-pc-objaverse"),
    "vitlens-l-depth": ("depth", "tri_tower", 8, "vitlens-l-depth"),
    "vitlens-l-audio": ("audio", "tri_tower", 32, "vitlens-l-audio"),
    "vitlens-l-tactile": ("tactile", "tri_tower", 8, "vitlens-l-tactile"),
    "vitlens-l-eeg": ("eeg", "tri_tower", 8, "vitlens-l-eeg"),
    "vitlens-g-pc-openshape": ("vitlensG_openshape_all", "openshape", 32, "vitlens-g-openshape"),
    "vitlens-g-pc-openshape-nolvis": ("vitlensG_openshape_nolvis", "openshape", 32, "vitlens-g-openshape-nolvis"),
}
EVERY = pytest.mark.parametrize("name", PUBLISHED)


@pytest.fixture(scope="module")
def published(reference: Path) -> dict[str, Any]:
    return json.loads((reference / "trainable_params.json").read_text())


@pytest.fixture(scope="module")
def tables() -> dict[str, ParameterTable]:
    return {name: parameter_table(load_recipe(name)) for name in shipped_recipes()}


def native(names: list[str], layout: Any, sensor: str) -> set[str]:
    """Official parameter names as ours, by the table that imports official weights."""
    official = {name: torch.empty(0) for name in names if name != "logit_scale"}
    return {*import_official(official, sensor=sensor, layout=layout).state, "logit_scale"}


def test_there_is_a_recipe_for_every_published_command() -> None:
    assert set(shipped_recipes()) == {*PUBLISHED, "vitlens-b-audio"}


@EVERY
def test_exactly_the_published_parameters_train(name: str, published: dict[str, Any], tables: dict[str, ParameterTable]) -> None:
    entry, layout, _, _ = PUBLISHED[name]
    sensor, table = load_recipe(name).model.modality, tables[name]
    assert set(table.trainable) == native(published[entry]["trainable"], layout, sensor)
    separate = layout == "openshape"  # there the temperature is a network of its own and is not counted
    assert len(table.trainable) == published[entry]["n_trainable_tensors"] + separate
    assert table.trainable_parameters == published[entry]["n_trainable_params"] + separate
    whole = published[entry.removesuffix(LOCKED)]
    if "no_weight_decay" in whole:
        undecayed = native(whole["no_weight_decay"], layout, sensor)
        assert set(table.no_decay) == undecayed & set(table.trainable)


@EVERY
def test_the_published_numbers_are_in_the_recipe(name: str, published: dict[str, Any]) -> None:
    entry, layout, processes, _ = PUBLISHED[name]
    recipe, known = load_recipe(name), published[entry.removesuffix(LOCKED)]
    if layout == "openshape":  # from the command line and configuration of the public code; not in the measurements
        known = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "wd": 0.2, "warmup": 10000, "epochs": 160}
        known |= {"batch_size": 16, "accum_freq": 1, "grad_clip_norm": 10.0}
        assert recipe.loss.initial_scale == 14.28
    optimizer = recipe.optimizer
    assert (optimizer.lr, *optimizer.betas) == (known["lr"], known["beta1"], known["beta2"])
    assert (optimizer.eps, optimizer.weight_decay) == (known["eps"], known["wd"])
    assert optimizer.clip_norm == known["grad_clip_norm"]
    assert (recipe.schedule.warmup_steps, recipe.schedule.epochs) == (known["warmup"], known["epochs"])
    assert recipe.schedule.kind == "cosine"
    assert recipe.batch_size == processes * known["batch_size"] * known["accum_freq"]


@EVERY
def test_the_encoder_is_the_zoos(name: str) -> None:
    """What a recipe trains can be compared with the released weights; options that only state a default may differ."""
    recipe = load_recipe(name)
    ours = encoder_spec(recipe, anchor_spec(recipe))
    card = all_cards()[PUBLISHED[name][3]].spec
    theirs = next(e for e in card.encoders if e.modality == recipe.model.modality)
    assert (ours.vit, ours.lens, ours.token_width) == (theirs.vit, theirs.lens, theirs.token_width)
    assert card.space == anchor_spec(recipe).space
    if "pc" not in name or "-g-" in name:
        assert ours.trains == theirs.trains


def test_point_cloud_recipes_lock_what_the_published_commands_left_open(
    published: dict[str, Any], tables: dict[str, ParameterTable]
) -> None:
    for name in ("pc_shapenet", "pc_objaverse"):
        assert published[name]["n_trainable_params"] == published[name]["n_total_params_unique"], "as published all of it trains"
        assert tables[f"vitlens-l-{name.replace('_', '-')}"].trainable_parameters < 0.15 * published[name]["n_trainable_params"]
    for name in shipped_recipes():
        notes = " ".join(load_recipe(name).notes)
        assert "on purpose" in notes, "deliberate differences must be stated"
        assert ("no lock flag" in notes) == name.startswith("vitlens-l-pc")


# --- files, changes, mistakes ----------------------------------------------------------------------------------------


def test_a_recipe_survives_yaml(tmp_path: Path) -> None:
    recipe = load_recipe("vitlens-g-pc-openshape", set=["optimizer.ema=0.99", "model.lora={rank: 3}", "data.templates=['a {}.']"])
    (tmp_path / "r.yaml").write_text(recipe_yaml(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.learning_rate=1", "unknown key 'optimizer.learning_rate'"),
        ("optimiser.lr=1", "unknown key 'optimiser'; did you mean optimizer?"),
        ("model.lora.rnk=1", "unknown key 'model.lora.rnk'; did you mean model.lora.rank?"),
        ("model.trains.first_block=1", "did you mean model.trains.first_blocks?"),
        ("optimizer.lr=fast", "optimizer.lr: .*'fast'"),
        ("precision=fp8", "precision: .*'fp8'"),
        ("batch_size=0", "batch_size must be a whole number of 1 or more, found 0"),
        ("optimizer.ema=1.5", "optimizer.ema must be a number from 0 to 1, found 1.5"),
        ("data.max_bad_share=nan", "data.max_bad_share must be"),
        ("optimizer.lr", "write it as KEY=VALUE"),
    ],
)
def test_mistakes_name_their_key(change: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_recipe("vitlens-l-depth", set=[change])


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="vitlens-l-audio"):
        load_recipe("no-such-recipe")
    (tmp_path / "broken.yaml").write_text("model: [")
    with pytest.raises(OptionError, match=r"broken\.yaml: not YAML"):
        load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "train.csv").write_text("depth,image\n" + "a.png,b.png\n" * 1000)
    with pytest.raises(OptionError, match=r"train\.csv: no recipe, .{0,99}$"):
        load_recipe(tmp_path / "train.csv")
    with pytest.raises(OptionError, match="unknown lens kind"):
        parameter_table(load_recipe("vitlens-l-depth", set=["model.lens.kind=fisheye"]))
    with pytest.raises(OptionError, match=r"model\.vit"):
        parameter_table(load_recipe("vitlens-l-depth", set=["model.vit.size=3"]))
    with pytest.raises(OptionError, match=r"model\.modality"):
        parameter_table(Recipe(name="x"))


def test_what_only_says_where_and_how_is_not_part_of_a_runs_identity() -> None:
    plain = load_recipe("vitlens-l-depth")
    same = ["output=elsewhere", "device=cpu", "data.num_workers=4", "checkpoints.keep=9", "logs.plot=false", "compile=true"]
    assert load_recipe("vitlens-l-depth", set=same).identity() == plain.identity()
    for other in ("seed=1", "optimizer.lr=1", "schedule.epochs=3", "batch_size=8", "model.trains.last_blocks=1"):
        assert load_recipe("vitlens-l-depth", set=[other]).identity() != plain.identity(), other


# --- the optimiser ---------------------------------------------------------------------------------------------------


def test_the_schedule_warms_up_and_falls_to_its_end() -> None:
    options = ScheduleOptions(warmup_steps=10, final_share=0.1)
    rates = [rate_at(step, 110, 2.0, options) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert rates[-1] == pytest.approx(0.2, abs=0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rate_at(60, 110, 2.0, ScheduleOptions(kind="constant", warmup_steps=10)) == 2.0
    early = ScheduleOptions(kind="cosine_from_start", warmup_steps=10)
    half = 0.5 * (1 + math.cos(math.pi * 5 / 110))
    assert rate_at(5, 110, 2.0, early) == pytest.approx(2.0 * 0.6 * half), "the warm-up is a factor on the cosine"
    assert rate_at(55, 110, 2.0, early) == pytest.approx(1.0)
    assert warmup_of(ScheduleOptions(warmup_steps=10000), 400) == 40, "a run never ends inside its warm-up"


def test_vectors_have_no_weight_decay_and_the_vit_its_own_rate() -> None:
    named = [("embed.proj.weight", (2, 3)), ("embed.proj.bias", (2,)), ("vit.positions", (4, 2)), ("log_scale", ())]
    parameters = [(name, torch.nn.Parameter(torch.ones(shape))) for name, shape in named]
    optimizer = build_optimizer(parameters, OptimizerOptions(lr=1e-2, weight_decay=0.2, vit_lr_scale=0.1))
    fates = {id(p): (group["weight_decay"], group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    assert [fates[id(p)] for _, p in parameters] == [(0.2, 1e-2), (0.0, 1e-2), (0.2, pytest.approx(1e-3)), (0.0, 1e-2)]


def test_an_average_that_warms_up_follows_fast_at_first() -> None:
    weights = {"w": torch.zeros(1)}
    average = MovingAverage(weights, 0.5, warmup=True)
    average.update({"w": torch.ones(1)}, step=0)
    assert float(average.state["w"]) == pytest.approx(1 - 1 / 10)
    average.update({"w": torch.zeros(1)}, step=1000)
    assert float(average.state["w"]) == pytest.approx(0.9 * 0.5), "later its decay is the one that was asked for"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command() -> Any:
    return lambda *arguments: CliRunner().invoke(app, ["train", *arguments])


@pytest.mark.parametrize("content", ["name: café".encode("latin-1"), "name: x".encode("utf-16"), b"\xff\xfe\x00"])
def test_a_recipe_that_is_not_utf8_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(OptionError, match=r"mine\.yaml: not UTF-8 \(byte \d+\)"):
        load_recipe(file)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(OptionError, match="batch_size=1: a contrastive loss compares"):
        LensTask(load_recipe("vitlens-l-depth", set=["batch_size=1"]), train=[{"depth": 1}])


def test_a_dry_run_prints_the_table_and_the_differences(command: Any, tables: dict[str, ParameterTable]) -> None:
    done = command("vitlens-l-tactile", "--dry-run", "--set", "optimizer.lr=0.5")
    assert done.exit_code == 0, done.output
    assert "lr 0.5" in done.output
    assert f"{tables['vitlens-l-tactile'].trainable_parameters:,}" in done.output
    assert re.search(r"vit\.blocks\.0-3 +trains +yes", done.output)
    assert re.search(r"vit\.blocks\.4-23 +frozen", done.output)
    assert "Differs on purpose" in done.output


def test_the_command_lists_and_shows(command: Any) -> None:
    assert command("--list").output.split() == shipped_recipes()
    shown = command("vitlens-l-eeg", "--show", "--set", "seed=7").output
    assert "seed: 7" in shown
    assert command().exit_code == 2


def test_lora_is_in_the_table() -> None:
    table = parameter_table(load_recipe("vitlens-l-depth", set=["model.lora.rank=4", "model.trains.first_blocks=0"]))
    lora = [name for name in table.trainable if "lora_" in name]
    assert len(lora) == 24 * 2 * 4
    assert table.trainable_parameters < 2.2e6

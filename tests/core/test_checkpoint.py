"""Weights in and out: every official layout loads strictly both ways, manifests match, the native format round-trips."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import OrderedDict, defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import golden
from vitlens import checkpoint
from vitlens.cards import all_cards
from vitlens.errors import CheckpointError, InputError
from vitlens.model import ViTLens
from vitlens.spec import ModelSpec
from vitlens.weights_files import read_state_dict


def meta_model(spec: ModelSpec) -> ViTLens:
    with torch.device("meta"):
        return ViTLens.from_spec(spec)


MANIFESTS = {
    "vitlens-l": "keys_vitlensL_onestop",
    "vitlens-l-pc-shapenet": "keys_train_pc_shapenet",
    "vitlens-l-pc-objaverse": "keys_train_pc_objaverse",
    "vitlens-l-depth": "keys_train_depth",
    "vitlens-l-audio": "keys_train_audio",
    "vitlens-l-tactile": "keys_train_tactile",
    "vitlens-l-eeg": "keys_train_eeg",
    "vitlens-b-audio": "keys_train_vitlensB_audio_inferred",
    "vitlens-g-openshape": "keys_vitlensG_openshape_all",
    "vitlens-g-openshape-nolvis": "keys_vitlensG_openshape_nolvis",
    "vitlens-evag-point-cloud": "keys_lens_pointcloud_instructblip",
}


def manifest(name: str) -> dict[str, list[int]]:
    content = json.loads((golden.REFERENCE / f"{name}.json").read_text())
    return {key: value[0] if "meta" in content else value for key, value in content.get("keys", content).items()}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifest_of_a_published_layout_is_what_the_card_expects(name: str) -> None:
    chosen = all_cards()[name]
    file = chosen.weights[0]
    state = {key: torch.empty(shape, device="meta") for key, shape in manifest(MANIFESTS[name]).items()}
    state.pop("logit_scale", None)  # a number is needed to read it
    sensor = next((tower for tower in file.towers if tower not in ("image", "text")), "")
    assert checkpoint.detect_layout(state) == file.layout
    imported = checkpoint.import_official(state, sensor=sensor)
    own = meta_model(chosen.spec.restricted(file.towers)).state_dict()
    assert {k: tuple(v.shape) for k, v in imported.state.items()} == {k: tuple(v.shape) for k, v in own.items()}
    assert imported.towers == set(file.towers)


def test_every_card_with_a_published_layout_has_its_manifest_checked() -> None:
    assert set(all_cards()) - set(MANIFESTS) == {"vitlens-toybox", "vitlens-tiny-random"}


def one_stop(cases: dict[str, str]) -> dict[str, torch.Tensor]:
    """A small one-stop file made of the per-modality goldens."""
    state: dict[str, torch.Tensor] = {}
    for name, case in cases.items():
        for key, value in golden.official_state(case).items():
            if key.startswith("visual."):
                state[f"vitlens.{name}.{key.removeprefix('visual.')}"] = value
            elif key.startswith("image."):
                state[f"vitlens.image.{key.removeprefix('image.')}"] = value
            elif key != "logit_scale":
                state[f"vitlens.text.{key}"] = value
    return state


@pytest.mark.parametrize("module", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_nesting_and_prefixes_of_training_files(tmp_path: Path, module: bool, nested: bool) -> None:
    state = golden.official_state("eeg")
    saved: dict[str, Any] = {f"module.{k}" if module else k: v for k, v in state.items()}
    content = {"epoch": 3, "name": "run", "state_dict": saved, "optimizer": {"lr": 1.0}} if nested else saved
    torch.save(content, tmp_path / "eeg.pt")
    read = read_state_dict(tmp_path / "eeg.pt")
    assert list(read) == list(state)
    assert all(torch.equal(read[k], state[k]) for k in state)


def test_a_one_stop_file_fills_every_tower_and_names_are_translated() -> None:
    imported = checkpoint.import_official(one_stop({"pc": "pc", "audio": "audio"}))
    assert imported.towers == {"point_cloud", "audio", "image", "text"}
    assert "encoders.point_cloud.embed.reduce_dim.weight" in imported.state


def spoiled(case: str, change: Any) -> tuple[ViTLens, dict[str, torch.Tensor]]:
    spec = golden.model_spec(case)
    state = golden.official_state(case)
    change(state)
    return meta_model(spec), checkpoint.import_official(state, sensor=spec.encoders[-1].modality).state


def test_a_missing_key_is_named() -> None:
    model, state = spoiled("depth", lambda s: s.pop("visual.ln_post.bias"))
    with pytest.raises(CheckpointError, match=r"1 keys missing: encoders\.depth\.vit\.norm_post\.bias"):
        checkpoint.fill_model(model, state, source="depth.pt")


def test_a_left_over_key_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"1 keys that layout tri_tower does not have: visual\.surprise"):
        spoiled("depth", lambda s: s.update({"visual.surprise": torch.zeros(1)}))
    model, state = spoiled("depth", lambda s: s.update({"visual.visual_adapter.extra": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"1 keys left over: encoders\.depth\.embed\.extra"):
        checkpoint.fill_model(model, state, source="depth.pt")


def test_another_shape_is_named_with_both_shapes() -> None:
    model, state = spoiled("depth", lambda s: s.update({"visual.proj": torch.zeros(128, 32)}))
    with pytest.raises(CheckpointError, match=r"encoders\.depth\.vit\.proj \[128, 32\] \(needed \[128, 64\]\)"):
        checkpoint.fill_model(model, state, source="depth.pt")


def test_tied_copies_must_be_equal() -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        key = "visual.perceiver.layers.2.0.fn.to_q.weight"
        state[key] = state[key] + 1

    model, state = spoiled("pc_tied", change)
    with pytest.raises(CheckpointError, match="one tied tensor, but their values differ"):
        checkpoint.fill_model(model, state, source="pc.pt")


def test_unknown_layouts_and_nameless_sensors_are_refused() -> None:
    with pytest.raises(CheckpointError, match="unknown layout: keys start with conv, fc"):
        checkpoint.import_official({"fc.weight": torch.zeros(1), "conv.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="say which modality"):
        checkpoint.import_official(golden.official_state("depth"))


class Surprise:
    """Something a checkpoint must not be able to bring to life."""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"garbage" * 50])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_files_that_are_no_weights(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises((CheckpointError, InputError), match="weights"):
        read_state_dict(file)


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": {"visual.x": Surprise()}}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="not a readable weights file"):
        read_state_dict(tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_state_dict(tmp_path / "list.pt")


HARMLESS = {
    "a numpy number": lambda: np.float64(81.2),
    "a numpy truth value": lambda: np.bool_(True),
    "arguments": lambda: argparse.Namespace(lr=1e-3, betas=(0.9, 0.98), tags=["a"], resume=None),
    "a defaultdict of lists": lambda: defaultdict(list, {"top1": [1.0, 2.0]}),
    "a defaultdict of numbers": lambda: defaultdict(float, {"top1": 1.0}),
    "an ordered dictionary": lambda: OrderedDict(a=1),
    "an array": lambda: np.arange(6, dtype=np.int32).reshape(2, 3),
    "words": lambda: np.array(["car", "plane"]),
    "a half array": lambda: np.ones(2, np.float16),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("what", HARMLESS)
def test_what_public_trainers_leave_beside_the_tensors_is_read(what: str, core: str, zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "epoch_1.pt"
    torch.save({"state_dict": {"module.a": torch.ones(2)}, "left": HARMLESS[what]()}, file, _use_new_zipfile_serialization=zipped)
    if core == "numpy.core" and not zipped:  # as numpy 1 writes it: another name of one length less
        file.write_bytes(file.read_bytes().replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    assert list(read_state_dict(file)) == ["a"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Path("a"), type(Path("a")).__module__ + ".PosixPath"),
        (os.getcwd, "posix.getcwd"),
        (date(2020, 1, 1), "datetime.date"),
        (shutil.rmtree, "shutil.rmtree"),
    ],
)
def test_any_other_type_is_refused_by_its_name_alone(thing: Any, name: str, zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "epoch_1.pt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "left": thing}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=f"it holds a {name}, which is not among the harmless types") as caught:
        read_state_dict(file)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    torch.save(golden.official_state("depth"), tmp_path / "depth.pt")
    content = (tmp_path / "depth.pt").read_bytes()
    (tmp_path / "depth.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"depth\.pt"):
        read_state_dict(tmp_path / "depth.pt")


def filled(case: str) -> ViTLens:
    spec = golden.model_spec(case)
    model = meta_model(spec)
    state = checkpoint.import_official(golden.official_state(case), sensor=spec.encoders[-1].modality).state
    checkpoint.fill_model(model, state, source=case)
    return model


@torch.no_grad()
def test_the_native_format_gives_the_same_numbers_back(tmp_path: Path) -> None:
    model = filled("eeg")
    model.save_pretrained(tmp_path / "mine")
    again = ViTLens.from_pretrained(str(tmp_path / "mine"), device="cpu")
    x = golden.batch("eeg")
    assert torch.equal(model({"eeg": x})["eeg"], again({"eeg": x})["eeg"])
    assert again.spec == model.spec
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_model_saved_twice_is_the_same_file(tmp_path: Path) -> None:
    model = filled("depth")
    files = [model.save_pretrained(tmp_path / str(n) / "m") for n in range(6)]  # an order of two names may agree by chance
    for name in ("model.safetensors", "config.json", "README.md"):
        assert len({(folder / name).read_bytes() for folder in files}) == 1, name


def test_shared_tensors_are_stored_once_and_come_back_shared(tmp_path: Path) -> None:
    model = filled("eeg")
    state = dict(model.state_dict())
    twins = {k: state[k.replace("encoders.eeg", "encoders.image")] for k in state if k.startswith("encoders.eeg.vit.")}
    sharing = meta_model(model.spec)
    checkpoint.fill_model(sharing, {**state, **twins}, source="twins")
    assert sharing.encoders["eeg"].vit.proj is sharing.encoders["image"].vit.proj
    small = sharing.save_pretrained(tmp_path / "small") / "model.safetensors"
    large = model.save_pretrained(tmp_path / "large") / "model.safetensors"
    assert small.stat().st_size < large.stat().st_size
    again = ViTLens.from_pretrained(str(tmp_path / "small"), device="cpu")
    assert again.encoders["eeg"].vit.proj is again.encoders["image"].vit.proj
    alone = ViTLens.from_pretrained(str(tmp_path / "small"), modalities=["eeg"], device="cpu")
    assert list(alone.encoders) == ["eeg"]
    assert torch.equal(alone.encoders["eeg"].vit.proj, sharing.encoders["image"].vit.proj)


def test_a_damaged_native_folder_is_named(tmp_path: Path) -> None:
    folder = filled("depth").save_pretrained(tmp_path / "m")
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"], "who may read the one may read the other"
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        ViTLens.from_pretrained(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        ViTLens.from_pretrained(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ViTLens.from_pretrained(str(folder))


def test_weights_can_be_loaded_in_another_type() -> None:
    model = meta_model(golden.model_spec("depth"))
    state = checkpoint.import_official(golden.official_state("depth"), sensor="depth").state
    checkpoint.fill_model(model, state, source="depth", dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model({"depth": golden.batch("depth")})["depth"].dtype == torch.bfloat16


def test_openshapes_temperature_is_taken_and_projection_heads_are_refused(tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in golden.official_state("pc_pnsa").items()}
    scale = {"module.logit_scale": torch.tensor(2.5)}
    torch.save({"state_dict": state, "logit_scale": scale, "text_proj": None, "image_proj": None}, tmp_path / "pc.pt")
    imported = checkpoint.import_official(read_state_dict(tmp_path / "pc.pt"), sensor="point_cloud")
    assert imported.logit_scale == pytest.approx(float(torch.tensor(2.5).exp()))
    torch.save({"state_dict": state, "text_proj": {"weight": torch.zeros(1)}}, tmp_path / "pc.pt")
    with pytest.raises(CheckpointError, match="projection heads"):
        read_state_dict(tmp_path / "pc.pt")


def test_a_native_file_with_a_tower_of_nobody_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = filled("depth").save_pretrained(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "encoders.smell.vit.proj": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"keys of no tower in config\.json: encoders\.smell"):
        ViTLens.from_pretrained(str(folder))


def test_counters_that_were_cast_along_with_the_weights_count_again() -> None:
    norm = torch.nn.BatchNorm1d(4)
    norm(torch.randn(8, 4))
    halved = {key: value.half() for key, value in norm.state_dict().items()}
    with torch.device("meta"):
        empty = torch.nn.BatchNorm1d(4)
    checkpoint.fill_model(empty, halved, source="halved")
    assert (empty.num_batches_tracked.dtype, empty.num_batches_tracked.item()) == (torch.int64, 1)
    with torch.device("meta"):
        empty = torch.nn.BatchNorm1d(4)
    with pytest.raises(CheckpointError, match="1 weights of a type that none here has: num_batches_tracked float16"):
        checkpoint.fill_model(empty, halved | {"num_batches_tracked": torch.tensor(1.5).half()}, source="halved")

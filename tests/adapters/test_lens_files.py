"""Lens files as they are published and as trainings leave them: made-up ones in those forms, plugged into a host."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vitlens
from tests.adapters import tiny_hosts
from tests.adapters.chat.test_lavis import as_lavis
from vitlens.adapters.chat.instructblip import InstructBlipAdapter
from vitlens.adapters.lenses import lens_streams
from vitlens.cards import ModelCard, Weights, all_cards
from vitlens.checkpoint import detect_layout, import_official
from vitlens.encoder import EncoderSpec
from vitlens.errors import CheckpointError, HostError, ModalityError, ModelError
from vitlens.fingerprint import fingerprint, fingerprint_of_state
from vitlens.lens_config import PerceiverConfig
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.vit import ViTSpec
from vitlens.weights_files import read_state_dict

State = dict[str, Tensor]
ASK = "what is this object ?"
FILE = "tiny_eva_objaverse.pt"


def host_model(seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """A tiny InstructBLIP whose ViT has no bias on its keys, as EVA's."""
    model, parts = tiny_hosts.instructblip(seed=seed)
    with torch.no_grad():
        for layer in model.vision_model.encoder.layers:
            layer.self_attn.qkv.bias.chunk(3)[1].zero_()
    return model, parts


def spec() -> ModelSpec:
    geometry = {"width": 32, "head_width": 8, "patches": tiny_hosts.TOKENS, "patch_size": tiny_hosts.PATCH}
    sensor = EncoderSpec(
        "point_cloud",
        ViTSpec("the tiny InstructBLIP", library="host", config=geometry),
        lens=PerceiverConfig(depth=2),
        token_width=24,
        options=tiny_hosts.SMALL["point_cloud"],
    )
    return ModelSpec("tiny-evag", EmbeddingSpace("tokens", 32), (sensor,))


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lens that the files hold; its card is the only one with their layout."""
    entry = ModelCard(
        spec=spec(),
        summary="tiny",
        weights=(Weights("hub", ("point_cloud",), FILE, repo="TencentARC/ViT-Lens", layout="lens"),),
        source="here",
        training_data="none",
    )
    others = {name: card for name, card in all_cards().items() if name != "vitlens-evag-point-cloud"}
    monkeypatch.setattr("vitlens.zoo.all_cards", lambda: {**others, "tiny-evag": entry})
    return tiny_hosts.redraw(ViTLens.from_spec(spec()))


def trimmed(source: ViTLens, head: str = "visual.") -> State:
    names = {"embed": "visual_adapter", "lens": "perceiver"}
    found = {}
    for key, value in source.state_dict().items():
        part, rest = key.removeprefix("encoders.point_cloud.").split(".", 1)
        found[f"{head}{names[part]}.{rest}"] = value
    return found


def eva(model: Any) -> State:
    """The host's ViT as the training's file names it."""
    whole = {key.removeprefix("visual_encoder."): value for key, value in as_lavis(model).items() if "visual_encoder" in key}
    more = {
        "norm.weight": torch.ones(32),
        "norm.bias": torch.zeros(32),
        "head.weight": torch.ones(4, 32),
        "head.bias": torch.ones(4),
    }
    last = {key.replace("blocks.2.", "blocks.3."): value for key, value in whole.items() if key.startswith("blocks.2.")}
    return {f"visual.eva_vit.{key}": value for key, value in {**whole, **last, **more}.items()}  # a block more than the host


def anchors() -> State:
    """The CLIP beside it: image tower, text tower, temperature."""
    return {
        "image.class_embedding": torch.ones(8),
        "image.transformer.resblocks.0.ln_1.weight": torch.ones(8),
        "image.proj": torch.ones(8, 4),
        "token_embedding.weight": torch.ones(5, 4),
        "positional_embedding": torch.ones(7, 4),
        "transformer.resblocks.0.attn.in_proj_weight": torch.ones(12, 4),
        "ln_final.weight": torch.ones(4),
        "text_projection": torch.ones(4, 4),
        "logit_scale": torch.tensor(4.6),
    }


def untrimmed(source: ViTLens, model: Any) -> State:
    return trimmed(source) | eva(model) | {"visual.eva_vit_proj.weight": torch.ones(4, 32)} | anchors()


Form = Callable[[ViTLens, Any], Any]
FORMS: dict[str, Form] = {
    "trimmed": lambda source, model: trimmed(source),
    "trimmed, without visual": lambda source, model: trimmed(source, ""),
    "trimmed, of a distributed training": lambda source, model: {
        "state_dict": {f"module.{key}": value for key, value in trimmed(source).items()},
        "epoch": 1,
    },
    "untrimmed": lambda source, model: untrimmed(source, model),
    "untrimmed, as the trainer saves it": lambda source, model: {
        "epoch": 40,
        "name": "pc_eva",
        "args": argparse.Namespace(lr=1e-4),
        "state_dict": {f"module.{key}": value for key, value in untrimmed(source, model).items()},
        "optimizer": {"state": {}, "param_groups": []},
    },
    "untrimmed, with a parameter for the projection": lambda source, model: {
        **trimmed(source), **eva(model), "visual.eva_vit_proj": torch.ones(32, 4), "logit_scale": torch.tensor(4.6)
    },
    "untrimmed, its text tower under a name of its own": lambda source, model: {
        **trimmed(source), **eva(model), "text.transformer.resblocks.0.ln_1.weight": torch.ones(4)
    },
    "without the vit, beside its anchors": lambda source, model: trimmed(source) | anchors(),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_in_every_form_is_the_same_lens(form: str, legacy: bool, tmp_path: Path, source: ViTLens) -> None:
    model, parts = host_model()
    path = tmp_path / "my_lens.pt"
    torch.save(FORMS[form](source, model), path, _use_new_zipfile_serialization=not legacy)
    host = InstructBlipAdapter(model, lenses={"point_cloud": str(path)}, **parts)
    twin = InstructBlipAdapter(model, lenses={"point_cloud": source}, **parts)
    clouds = {"point_cloud": tiny_hosts.clouds(2)}
    with torch.no_grad():
        assert torch.equal(host.soft_tokens(ASK, clouds), twin.soft_tokens(ASK, clouds))
    known = host.lenses["point_cloud"].fingerprint
    assert (known is not None) == any("eva_vit." in key for key in read_state_dict(path))


def test_the_vit_in_the_file_is_compared_with_the_hosts(tmp_path: Path, source: ViTLens) -> None:
    model, parts = host_model()
    stranger, _ = host_model(seed=9)
    torch.save(untrimmed(source, stranger), tmp_path / "lens.pt")
    with pytest.raises(HostError, match=r"was trained against another ViT .* class_token, positions, blocks\.0"):
        InstructBlipAdapter(model, lenses={"point_cloud": tmp_path / "lens.pt"}, **parts)
    InstructBlipAdapter(model, lenses={"point_cloud": tmp_path / "lens.pt"}, allow_other_vit=True, **parts)
    half = {key: value.half() if "eva_vit" in key else value for key, value in untrimmed(source, model).items()}
    torch.save(half, tmp_path / "half.pt")
    InstructBlipAdapter(model, lenses={"point_cloud": tmp_path / "half.pt"}, **parts)
    view = InstructBlipAdapter(model, **parts).tower.view()
    state = {key.removeprefix("visual.eva_vit."): value for key, value in eva(model).items()}
    own = fingerprint(view)
    assert fingerprint_of_state(state).distance(own, own.parts) < 1e-6


def test_the_fingerprint_travels_with_a_saved_lens(tmp_path: Path, source: ViTLens) -> None:
    model, parts = host_model()
    torch.save(untrimmed(source, model), tmp_path / FILE)
    vitlens.load("tiny-evag", weights=tmp_path / FILE, device="cpu").save_pretrained(tmp_path / "mine")
    for place in (tmp_path / "mine", tmp_path / "mine" / "model.safetensors"):
        InstructBlipAdapter(model, lenses={"point_cloud": place}, **parts)
        with pytest.raises(HostError, match="trained against another ViT"):
            InstructBlipAdapter(host_model(seed=9)[0], lenses={"point_cloud": place}, **parts)


def test_what_a_file_holds_beside_the_lens_is_said(source: ViTLens) -> None:
    model, _ = host_model()
    found = import_official(untrimmed(source, model), sensor="point_cloud")
    assert found.left_out == ("the head behind the ViT", "the image tower", "the text tower", "the temperature")
    assert found.towers == {"point_cloud"} and len(found.state) == len(source.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(next(key for key in state if "perceiver" in key)), "1 keys missing: encoders.point_cloud.lens"),
        (lambda state: state.update({"visual.perceiver.extra.weight": torch.ones(2)}), "keys left over.*lens.extra.weight"),
        (lambda state: state.update({"visual.visual_adapter.more": torch.ones(2)}), "keys left over.*embed.more"),
        (lambda state: state.update({"visual.ln_post.weight": torch.ones(2)}), "does not have: visual.ln_post.weight"),
        (lambda state: state.update({"audio.proj": torch.ones(2)}), "does not have: audio.proj"),
    ],
)
def test_inside_the_lens_nothing_may_be_missing_or_left_over(
    change: Callable[[State], Any], message: str, tmp_path: Path, source: ViTLens
) -> None:
    state = untrimmed(source, host_model()[0])
    change(state)
    torch.save(state, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=message):
        vitlens.load("tiny-evag", weights=tmp_path / FILE, device="cpu")


def test_a_folder_of_weights_works_for_it(tmp_path: Path, source: ViTLens, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ViT-Lens").mkdir()
    for place in (tmp_path / FILE, tmp_path / "ViT-Lens" / FILE):
        torch.save(trimmed(source), place)
        monkeypatch.setenv("VITLENS_WEIGHTS", str(tmp_path))
        [stream] = lens_streams({"point_cloud": "tiny-evag"}).values()
        assert torch.equal(next(stream.lens.parameters()), next(source.encoders["point_cloud"].lens.parameters()))  # type: ignore[operator,union-attr]
        place.unlink()
    with pytest.raises(ModelError, match=f"needs the file {FILE} of the Hub repository TencentARC/ViT-Lens"):
        lens_streams({"point_cloud": "tiny-evag"})


def test_streams_under_other_names_and_files_that_are_none(tmp_path: Path, source: ViTLens) -> None:
    torch.save(trimmed(source), tmp_path / FILE)
    assert list(lens_streams({"scan_left": tmp_path / FILE, "scan_right": str(tmp_path / FILE)})) == ["scan_left", "scan_right"]
    with pytest.raises(ModelError, match=r"lens of 'point_cloud': weights/gone\.pt: no such file"):
        lens_streams({"point_cloud": "weights/gone.pt"})
    torch.save(trimmed(source), tmp_path / "other.pt")
    with pytest.raises(ModelError, match="layout lens, which no model with the modality depth has"):
        lens_streams({"depth": tmp_path / "other.pt"})
    with pytest.raises(ModalityError):
        lens_streams({"depth": "tiny-evag"})
    (tmp_path / "notes.pt").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"notes\.pt: not a readable weights file"):
        lens_streams({"point_cloud": tmp_path / "notes.pt"})


def test_a_training_file_that_several_models_have_is_asked_about(tmp_path: Path) -> None:
    state = {f"visual.{key}": torch.ones(1) for key in ("visual_adapter.a", "perceiver.b", "transformer.resblocks.0.ln_1.weight")}
    state |= anchors()
    torch.save(state, tmp_path / "mine.pt")
    assert detect_layout(state) == "tri_tower"
    with pytest.raises(ModelError, match=r"vitlens-l-pc-shapenet, vitlens-l-pc-objaverse have: load\(NAME, weights="):
        lens_streams({"point_cloud": tmp_path / "mine.pt"})


def test_the_published_lens_has_a_card_with_its_file() -> None:
    card = all_cards()["vitlens-evag-point-cloud"]
    [file] = card.weights
    assert (file.kind, file.repo, file.file, file.layout) == ("hub", "TencentARC/ViT-Lens", "eva_g14_objaverse.pt", "lens")
    assert "StanLei52/ViT-Lens-Integration" in card.source

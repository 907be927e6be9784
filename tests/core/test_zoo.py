"""The zoo: cards say what a user needs, weights are found where they lie, and no network is an answer within seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vitlens
from tests import golden
from vitlens import zoo
from vitlens.cards import ModelCard, Weights
from vitlens.errors import CheckpointError, ModalityError, ModelError, OptionError


def test_released_cards_quote_published_scores() -> None:
    scores = {(s.dataset, s.metric): s.value for s in vitlens.card("vitlens-l").scores}
    assert scores["ModelNet40", "top-1"] == 80.6
    assert scores["NYUv2 (depth)", "top-1"] == 68.5


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    for name in ("vitlens-xxl", tmp_path / "nowhere", "./nowhere"):
        with pytest.raises(ModelError, match="vitlens-l"):
            vitlens.load(name)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        vitlens.load(tmp_path)


def test_offline_says_what_to_download_and_where_to_put_it() -> None:
    with pytest.raises(
        ModelError, match=r"vitlensL\.pt of the Hub repository TencentARC/ViT-Lens.*VITLENS_WEIGHTS.*HF_HUB_OFFLINE"
    ):
        vitlens.load("vitlens-l", modalities=["text"])


def test_no_network_is_an_answer_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://192.0.2.1")  # a documentation address: nothing is there
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ModelError, match="cannot be reached"):
        vitlens.load("vitlens-l-depth")


def golden_card(case: str, *, kind: str = "hub") -> ModelCard:
    spec = golden.model_spec(case)
    towers = tuple(e.modality for e in spec.encoders) + (("text",) if spec.text else ())
    file = Weights(kind, towers, f"{case}.pt", repo="somebody/models")  # type: ignore[arg-type]
    return ModelCard(spec=spec, summary="golden", weights=(file,), source="tests")


@pytest.fixture
def golden_zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    torch.save({"state_dict": golden.official_state("depth")}, tmp_path / "depth.pt")
    made = golden_card("depth")
    monkeypatch.setattr(zoo, "all_cards", lambda: {made.name: made})
    return tmp_path


def test_weights_are_found_in_a_folder_a_file_and_the_environment(golden_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_folder = vitlens.load("golden-depth", weights=golden_zoo, device="cpu")
    by_file = vitlens.load("golden-depth", weights=golden_zoo / "depth.pt", device="cpu")
    monkeypatch.setenv("VITLENS_WEIGHTS", str(golden_zoo))
    by_environment = vitlens.load("golden-depth", device="cpu")
    outputs = [m({"depth": golden.batch("depth")})["depth"] for m in (by_folder, by_file, by_environment)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert by_folder.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


def test_a_subset_of_a_training_file_takes_only_its_towers(golden_zoo: Path) -> None:
    model = vitlens.load("golden-depth", weights=golden_zoo, modalities=["depth"], device="cpu")
    assert {key.split(".")[1] for key in model.state_dict()} == {"depth"}


def test_a_folder_that_is_not_there_is_named(golden_zoo: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder of weights"):
        vitlens.load("golden-depth", weights=golden_zoo / "nope")


def test_a_file_of_another_modality_is_refused(golden_zoo: Path) -> None:
    torch.save(golden.official_state("eeg"), golden_zoo / "depth.pt")
    with pytest.raises(CheckpointError, match="keys missing"):
        vitlens.load("golden-depth", weights=golden_zoo)


def test_the_tiny_model_is_the_same_every_time() -> None:
    first, second = (vitlens.load("vitlens-tiny-random", modalities=["text"], device="cpu") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_a_server_that_stays_silent_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from huggingface_hub import constants

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ModelError, match="cannot be reached"):
            vitlens.load("vitlens-l-depth")


def test_devices_that_are_not_there_are_named_before_anything_is_loaded() -> None:
    for device in ("cuda:99", "toaster"):
        with pytest.raises(OptionError, match=device):
            vitlens.load("vitlens-tiny-random", device=device)
    with pytest.raises(OptionError, match="floating-point"):
        vitlens.load("vitlens-tiny-random", dtype=torch.int32)


def test_asking_for_nothing_is_refused() -> None:
    with pytest.raises(ModalityError, match="no modality asked for"):
        vitlens.load("vitlens-tiny-random", modalities=[])


def test_a_one_stop_file_with_a_stranger_in_it_is_refused(golden_zoo: Path) -> None:
    state = {**golden.official_state("depth"), "visual.visual_adapter.unknown": torch.zeros(1)}
    torch.save(state, golden_zoo / "depth.pt")
    with pytest.raises(CheckpointError, match="left over"):
        vitlens.load("golden-depth", weights=golden_zoo)


@pytest.mark.parametrize(
    "change",
    [
        {"encoders": {}},
        {"logit_scale": "x"},
        {"space": 3},
        {"text": {"name": "x", "library": "nothing"}},
        {"format": 9},
        {"encoders": [{"modality": "image", "vit": {"name": "x"}, "lens": "big"}]},
    ],
)
def test_a_config_edited_by_hand_is_one_clear_error(golden_zoo: Path, change: dict[str, object]) -> None:
    folder = vitlens.load("golden-depth", weights=golden_zoo, device="cpu").save_pretrained(golden_zoo / "native")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises((CheckpointError, OptionError), match=r"config\.json|encoder|no tower|no modality"):
        vitlens.load(folder)

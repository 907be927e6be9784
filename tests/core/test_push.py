"""A citizen of the Hub: models go up and come back, what is refused is told, and cards have the metadata that the site reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard as HubModelCard

import vitlens
from tests import golden
from tests.local_hub import TOKEN, LocalHub, local_hub
from vitlens.errors import ModelError
from vitlens.hub_card import MARK, metadata, readme
from vitlens.model import ViTLens


@pytest.fixture(scope="module")
def model() -> ViTLens:
    spec = replace(golden.model_spec("depth").restricted(["depth"]), licence="MIT (my own)")
    torch.manual_seed(0)
    return ViTLens.from_spec(spec)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub() as made:
        made.here(monkeypatch, tmp_path / "cache", token=TOKEN)
        yield made


def refused(model: ViTLens, repo: str, **options: str) -> str:
    with pytest.raises(ModelError) as caught:
        model.push_to_hub(repo, **options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{repo} cannot be uploaded: ")
    return str(caught.value)


def test_a_model_goes_up_and_comes_back(hub: LocalHub, model: ViTLens) -> None:
    assert model.push_to_hub("me/mine") == f"{hub.url}/me/mine"
    repository = hub.repositories["me/mine"]
    assert set(repository.files) == {"README.md", "config.json", "model.safetensors"} and not repository.private
    assert b'vitlens.load("me/mine")' in repository.files["README.md"]
    again = vitlens.load("me/mine", device="cpu")
    x = golden.batch("depth")
    with torch.inference_mode():
        torch.testing.assert_close(again({"depth": x})["depth"], model({"depth": x})["depth"])
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert again.spec.licence == "MIT (my own)"


def test_a_second_upload_replaces_the_first(hub: LocalHub, model: ViTLens) -> None:
    model.push_to_hub("me/mine")
    before = dict(hub.repositories["me/mine"].files)
    other = ViTLens.from_spec(model.spec)
    other.push_to_hub("me/mine")
    after = hub.repositories["me/mine"].files
    assert after["config.json"] == before["config.json"] and after["model.safetensors"] != before["model.safetensors"]


def test_a_readme_that_somebody_wrote_on_the_hub_is_kept(hub: LocalHub, model: ViTLens) -> None:
    hub.add("me/mine").files = {"README.md": b"# mine, with love"}
    model.push_to_hub("me/mine")
    assert hub.repositories["me/mine"].files["README.md"] == b"# mine, with love"
    assert "model.safetensors" in hub.repositories["me/mine"].files


def test_a_private_model_is_private(hub: LocalHub, model: ViTLens, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model.push_to_hub("me/secret", private=True)
    assert hub.repositories["me/secret"].private
    assert vitlens.load("me/secret", device="cpu").modalities == ["depth"]
    hub.here(monkeypatch, tmp_path / "another")
    with pytest.raises(ModelError, match="the Hub has no repository me/secret, or it is private"):
        vitlens.load("me/secret", device="cpu")


def test_a_gated_model_is_read_by_those_who_may(
    hub: LocalHub, model: ViTLens, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model.push_to_hub("me/gated")
    hub.repositories["me/gated"].gated = True
    assert vitlens.load("me/gated", device="cpu").modalities == ["depth"]
    hub.here(monkeypatch, tmp_path / "another")
    with pytest.raises(ModelError, match="the repository me/gated is gated: accept its terms") as caught:
        vitlens.load("me/gated", device="cpu")
    assert "network" not in str(caught.value)


def test_who_may_not_write_is_told(hub: LocalHub, model: ViTLens, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "your account or token may not write there" in refused(model, "somebody/theirs")
    assert "the Hub does not know who you are: log in" in refused(model, "me/mine", token="hf_wrong")
    hub.here(monkeypatch, tmp_path / "cache")
    assert "the Hub does not know who you are: log in" in refused(model, "me/mine")
    assert model.push_to_hub("me/mine", token=TOKEN) and "me/mine" in hub.repositories


def test_what_is_no_name_a_sick_hub_and_no_network_are_told(
    hub: LocalHub, model: ViTLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "'me/my model'" in refused(model, "me/my model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(model, "me/mine")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "the Hub cannot be reached from here" in refused(model, "me/mine")


def card_of(text: str) -> HubModelCard:
    return HubModelCard(text)


def test_a_saved_folder_has_the_metadata_that_the_hub_reads(model: ViTLens, tmp_path: Path) -> None:
    text = (model.save_pretrained(tmp_path / "mine") / "README.md").read_text(encoding="utf-8")
    data = card_of(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "vitlens", "feature-extraction")
    assert {"vitlens", "depth"} <= set(data.tags) and "image" not in data.tags
    assert data.eval_results is None and MARK in text and 'vitlens.load("mine")' in text


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("Apache-2.0 (licence of the public repository)", {"license": "apache-2.0"}),
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("unknown", {"license": "unknown"}),
        ("Our lab's own: ask!", {"license": "other", "license_name": "our-lab-s-own-ask"}),
    ],
)
def test_licences_have_the_hubs_names(licence: str, told: dict[str, str], model: ViTLens) -> None:
    data = card_of(metadata(replace(model.spec, licence=licence))).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == told


def test_a_model_of_the_zoo_brings_its_published_scores_and_base_model() -> None:
    card = vitlens.card("vitlens-l-pc-shapenet")
    text = readme(card.spec, card.spec.modalities, "me/mine")
    data = card_of(text).data
    assert data.base_model == "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"
    assert data.eval_results is not None
    first = data.eval_results[0]
    assert (first.dataset_name, first.metric_type, first.metric_value) == ("ModelNet40", "accuracy", 70.6)
    assert first.metric_args["training_data"] == "ULIP-ShapeNet triplets" and "64 prompts" in first.metric_args["protocol"]
    assert first.source_url == "https://arxiv.org/abs/2311.16081"
    assert "they were not measured on these files" in text


def test_a_part_of_it_or_another_model_does_not() -> None:
    spec = vitlens.card("vitlens-l-pc-shapenet").spec
    for other in (spec.restricted(["point_cloud"]), replace(spec, name="mine")):
        assert card_of(readme(other, other.modalities, "x")).data.eval_results is None


def test_published_scores_name_training_data_and_protocol() -> None:
    for name in vitlens.list_models():
        card = vitlens.card(name)
        for score in card.scores:
            if score.source != "measured here":
                trained_on = score.training_data or card.training_data
                assert score.protocol and trained_on and "see the cards" not in trained_on, (name, score)
    scores = {(name, s.value): s.training_data for name in vitlens.list_models() for s in vitlens.card(name).scores}
    assert scores["vitlens-l", 80.6] == scores["vitlens-l-pc-objaverse", 80.6] == "ULIP2-Objaverse triplets"
    assert scores["vitlens-l-pc-shapenet", 70.6] == "ULIP-ShapeNet triplets"


def test_the_shipped_model_has_its_metadata_too() -> None:
    from vitlens.cards import PACKAGE

    card = vitlens.card("vitlens-toybox")
    text = (PACKAGE / "benchmarks/toybox/weights/README.md").read_text(encoding="utf-8")
    assert text.startswith(metadata(card.spec, card.scores, training_data=card.training_data))

"""Model cards are data: every file fits the schema, and one that does not is told where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vitlens.cards import FOLDER, ModelCard, all_cards, read_cards
from vitlens.errors import OptionError
from vitlens.modality import list_modalities
from vitlens.spec import ModelSpec
from vitlens.towers import build_text_tower, build_vit
from vitlens.vit import ViTSpec

CARDS = list(all_cards().values())
GOOD = """
name: mine
summary: A card of mine
licence: MIT
source: nowhere
space: {name: a space, dim: 64}
encoders:
  - {modality: image, vit: {name: ViT-B-16}}
weights:
  - {kind: hub, repo: me/mine, file: a file, towers: [image]}
"""


def read(folder: Path, text: str) -> ModelCard:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    (card,) = read_cards(path)
    return card


def name_of(card: ModelCard) -> str:
    return card.name


def test_every_card_has_a_name_of_its_own() -> None:
    assert len(CARDS) == sum(len(read_cards(file)) for file in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("card", CARDS, ids=name_of)
def test_a_card_says_what_a_user_needs(card: ModelCard) -> None:
    assert card.licence.strip() and card.source.strip() and card.summary.strip() and card.training_data.strip()
    assert set(card.spec.modalities) <= set(list_modalities())
    towers = [encoder.modality for encoder in card.spec.encoders] + (["text"] if card.spec.text else [])
    assert sorted(tower for file in card.weights for tower in file.towers) == sorted(towers)
    assert all(file.repo and file.file for file in card.weights if file.kind == "hub")
    for score in card.scores:
        assert score.dataset and score.metric and score.source and 0 < score.value <= 100
    assert len({(score.dataset, score.metric) for score in card.scores}) == len(card.scores)
    assert all(note.endswith((".", ")")) for note in card.notes)
    json.dumps(card.spec.to_dict())
    assert ModelSpec.from_dict(json.loads(json.dumps(card.spec.to_dict()))).to_dict() == card.spec.to_dict()


def test_the_width_of_a_space_is_that_of_its_towers() -> None:
    def key(vit: ViTSpec) -> str:
        return json.dumps(vit.to_dict(), sort_keys=True)

    vits = {(key(e.vit), card.spec.space.dim): e.vit for card in CARDS for e in card.spec.encoders if not e.vit.skip_blocks}
    texts = {(key(card.spec.text), card.spec.space.dim): card.spec.text for card in CARDS if card.spec.text}
    with torch.device("meta"):
        assert {build_vit(vit).embed_dim - dim for (_, dim), vit in vits.items()} == {0}
        assert {build_text_tower(text).embed_dim - dim for (_, dim), text in texts.items()} == {0}


def test_a_card_of_ones_own_is_a_file(tmp_path: Path) -> None:
    card = read(tmp_path, GOOD)
    assert (card.name, card.licence, card.weights[0].kind, card.training_data) == ("mine", "MIT", "hub", "unknown")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("licence: MIT\n", "", "mine: licence: missing"),
        ("source: nowhere\n", "", "mine: source: missing"),
        ("source: nowhere", "source: 3", "source: input should be a valid string, found 3"),
        ("source: nowhere", "source: nowhere\nsorce: here", "sorce: unknown key"),
        ("summary: A card", "name: again\nsummary: A card", "name is there twice"),
        ("kind: hub", "kind: gift", "weights.0.kind: input should be 'hub'"),
        ("towers: [image]", "towers: image", "weights.0.towers"),
        ("towers: [image]", "towers: [image], tower: x", "weights.0.tower: unknown key"),
        ("dim: 64", "dims: 64", "dims"),
        ("space: {name: a space, dim: 64}", "", "space"),
        ("modality: image, vit", "modality: image, lenz: 3, vit", "unknown field 'lenz'"),
        ("{name: ViT-B-16}", "{name: ViT-B-16, library: nobody}", "unknown library 'nobody'"),
        ("name: mine", "name: [mine", "not YAML"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(OptionError) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert told in str(caught.value) and "mine.yaml" in str(caught.value)

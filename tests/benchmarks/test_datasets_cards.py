"""Every registered dataset: a complete card, class lists of the right length, prompts, and errors for a wrong root."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitlens.benchmarks.datasets import DatasetCard, Published, get_dataset, list_datasets, register_dataset
from vitlens.benchmarks.datasets.card import FOLDER, read_card
from vitlens.benchmarks.datasets.esc50 import ESC50
from vitlens.errors import InputError, OptionError
from vitlens.modality import list_modalities

CARDS = list_datasets()
SIZES = {
    "audioset": 527,
    "cifar10": 10,
    "cifar100": 100,
    "esc50": 50,
    "imagenet": 1000,
    "imagenet_eeg": 40,
    "modelnet40": 40,
    "modelnet40-openshape": 40,
    "nyuv2": 16,
    "objaverse_lvis": 1156,
    "scanobjectnn": 15,
    "scanobjectnn-openshape": 15,
    "sun_rgbd": 19,
    "touch_and_go": 20,
    "vggsound": 309,
    **{f"toybox-{sensor}": 33 for sensor in ("image", "point_cloud", "depth", "eeg", "thermal", "imu", "pressure")},
    **{f"toybox-{sensor}": 8 for sensor in ("tactile", "audio")},
}
RETRIEVALS = {"audiocaps", "clotho", "msrvtt", "things_eeg"}


def name_of(card: DatasetCard) -> str:
    return card.name


def test_all_datasets_are_there() -> None:
    assert {card.name for card in CARDS} == set(SIZES) | RETRIEVALS
    assert {card.name for card in CARDS if card.task == "retrieval"} == RETRIEVALS


@pytest.mark.parametrize("card", CARDS, ids=name_of)
def test_the_card_is_complete(card: DatasetCard) -> None:
    assert all((card.title, card.licence, card.source, card.layout, card.version))
    assert card.default_split in card.splits
    assert {card.modality, card.other_modality or card.modality} <= set(list_modalities())
    assert "<root>" in card.layout or "<- root" in card.layout
    assert all(note.endswith(".") and "  " not in note for note in card.notes)
    for score in card.published:
        assert isinstance(score, Published) and score.source and score.metric and score.split in card.splits
        assert 1 < score.value <= 100  # percent, not shares of 1


@pytest.mark.parametrize("card", CARDS, ids=name_of)
def test_classes_and_prompts(card: DatasetCard) -> None:
    dataset = get_dataset(card.name)
    if card.task == "retrieval":
        assert dataset.classes(card.default_split) == ()
        return
    assert len(dataset.classes(card.default_split)) == SIZES[card.name]
    for split in card.splits:
        names, written = dataset.classes(split), dataset.prompt_names(split)
        assert len(set(names)) == len(names)
        assert set(written) | set(dataset.merged(split)) <= set(names)
        assert len({written.get(name, name) for name in names}) == len(names)
        prompts = dataset.prompts(split)
        assert prompts and all(prompt.count("{}") == 1 and prompt == prompt.strip() for prompt in prompts)


@pytest.mark.parametrize("card", CARDS, ids=name_of)
def test_a_wrong_root_is_told_by_check_and_by_items(card: DatasetCard, tmp_path: Path) -> None:
    dataset = get_dataset(card.name)
    for root in (tmp_path / "no-such-folder", tmp_path):
        problems = dataset.check(root)
        assert problems and str(root) in problems[0].path and problems[0].expected
        with pytest.raises(InputError) as caught:
            dataset.items(root, card.default_split)
        assert str(root) in caught.value.source and caught.value.accepted
    with pytest.raises(OptionError, match=f"{card.name}: no split 'nonsense'; known: {next(iter(card.splits))}"):
        dataset.items(tmp_path, "nonsense")


GOOD = """
name: mine
title: A dataset of mine
task: classification
modality: image
splits: {test: 10, train: null}
default_split: test
licence: MIT
source: nowhere
layout: <root>/
published:
  - {split: test, metric: top1, values: {one: 50.0, other: 60.0}, source: zoo}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("licence: MIT", "", "licence: missing"),
        ("splits: {test: 10", 'splits: {test: "10"', "splits.test"),
        ("task: classification", "task: guessing", "task: input should be"),
        ("source: zoo", "source: zooo", "source 'zooo' is neither in sources.yaml (zoo, imagebind"),
        ("one: 50.0", "one: half", "published.0.value"),
        ("metric: top1", "metrics: top1", "published.0.metrics: unknown key"),
        ("values: {one: 50.0, other: 60.0}, ", "", "no 'values'"),
        ("default_split: test", "default_split: val", "default_split 'val' is none of test, train"),
        ("split: test, metric", "split: val, metric", "published: split 'val' is none of test, train"),
    ],
)
def test_what_does_not_fit_a_card_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD, encoding="utf-8")
    assert [score.model for score in read_card(file).published] == ["one", "other"]
    assert old in GOOD
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        read_card(file)
    assert told in str(caught.value) and "mine.yaml: mine: " in str(caught.value)


def test_a_card_is_called_as_its_file() -> None:
    assert {file.stem for file in (FOLDER / "cards").glob("*.yaml")} <= {card.name for card in CARDS}


def test_the_weight_of_the_bare_name_in_the_prompts_for_sounds() -> None:
    prompts = get_dataset("esc50").prompts("all")
    assert len(prompts) == 12 and prompts.count("{}.") == 3


def test_unknown_names_and_double_registration_are_refused() -> None:
    with pytest.raises(OptionError, match="unknown dataset 'esc51'; known: audiocaps, audioset"):
        get_dataset("esc51")
    with pytest.raises(OptionError, match=r"'esc50' is registered twice: vitlens\.benchmarks\.datasets\.esc50 and"):
        register_dataset(type("Mine", (ESC50,), {"__module__": "somewhere.else"}))

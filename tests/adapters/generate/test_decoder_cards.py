"""Decoder cards are data: every file fits the schema, and one that does not is told where."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitlens.adapters.generate.decoder_cards import FOLDER, DecoderCard, decoder_cards
from vitlens.errors import OptionError
from vitlens.facts import read_facts

FILES = sorted(FOLDER.glob("*.yaml"))
GOOD = """
name: mine
output: image
pipeline: StableUnCLIPImg2ImgPipeline
repo: somebody/something
space: {name: a space, dim: 64}
embedding: unclip
licence: MIT
licence_source: its page
"""


def name_of(card: DecoderCard) -> str:
    return card.name


@pytest.mark.parametrize("card", [card for file in FILES for card in read_facts(DecoderCard, file)], ids=name_of)
def test_a_card_says_what_a_user_needs(card: DecoderCard) -> None:
    assert card in decoder_cards(card.output)
    assert card.repo.count("/") == 1 and card.licence_source and card.licence != "unknown"
    assert card.defaults["num_inference_steps"] > 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("output: image", "output: smell", "output: input should be"),
        ("dim: 64", 'dim: "64"', "space.dim: input should be a valid integer"),
        ("embedding: unclip", "", "an embedding needs both, its space and how the pipeline takes it"),
        ("licence: MIT", "lisence: MIT", "lisence: unknown key"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD, encoding="utf-8")
    assert [card.name for card in read_facts(DecoderCard, file)] == ["mine"]
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        read_facts(DecoderCard, file)
    assert told in str(caught.value) and "mine.yaml: mine: " in str(caught.value)

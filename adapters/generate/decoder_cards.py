"""Decoder cards: what generates from an embedding, a text or a picture; its space, its licence, the memory it needs.

They are the YAML files in `cards/`, in the order of their names; another card there needs no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vitlens.checks import known, one_of
from vitlens.errors import OptionError
from vitlens.facts import read_facts
from vitlens.space import EmbeddingSpace

Kind = Literal["text", "image", "audio", "video", "3d"]
KINDS: tuple[Kind, ...] = ("text", "image", "audio", "video", "3d")

FOLDER = Path(__file__).parent / "cards"


@dataclass(frozen=True)
class DecoderCard:
    """What a user wants to know before choosing a decoder, and what it takes to drive it."""

    name: str
    output: Kind
    pipeline: str
    """Class in diffusers."""
    diffusers: str = ""
    """The oldest diffusers that runs it beside transformers 5; empty: any."""
    repo: str = ""
    """On the Hub; empty for a pipeline that is always given."""
    mirrors: tuple[str, ...] = ()
    """Repositories with the same files, tried in order where the first does not give them."""
    source: str = ""
    """Public code that loads this repository, as it was read here."""
    space: EmbeddingSpace | None = None
    """The space of the embeddings it takes; None: it takes none."""
    embedding: Literal["unclip", "kandinsky", "ip_adapter"] | None = None
    """How the pipeline takes an embedding."""
    text: Literal["alone", "beside"] | None = None
    """Whether it takes a text: by itself, only beside an embedding, or not at all."""
    picture: bool = False
    """It starts from a picture."""
    mixes: tuple[str, ...] = ()
    """What the pipeline's `encode_prompt` returns, by the names its call takes them back; empty: prompts are joined."""
    norm: float | None = None
    """Length of the embeddings it was trained on; None: measured, see `Decoder.norm`."""
    rate: int | None = None
    """Hertz of the sound, where the pipeline does not say."""
    fps: float | None = None
    """Frames a second of the video."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the pipeline's call."""
    half: Literal["float16", "bfloat16"] = "float16"
    """The half precision it is meant for."""
    licence: str = "unknown"
    licence_source: str = ""
    memory: str = "unknown"
    adapter: Mapping[str, str] = field(default_factory=dict)
    """Arguments of `load_ip_adapter`."""
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Parts that come from elsewhere: argument -> class in diffusers, repository."""
    image_encoder: str = ""
    """Where the CLIP image encoder of its space is, if not in the pipeline: repository/folder."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of(f"decoder {self.name}: output", self.output, KINDS[1:])
        if (self.space is None) != (self.embedding is None):
            raise OptionError(f"decoder {self.name}: an embedding needs both, its space and how the pipeline takes it")
        if not (self.embedding or self.text == "alone" or self.picture):
            raise OptionError(f"decoder {self.name}: takes neither an embedding, nor a text by itself, nor a picture")


@cache
def _registry() -> dict[str, DecoderCard]:
    return {card.name: card for file in sorted(FOLDER.glob("*.yaml")) for card in read_facts(DecoderCard, file)}


def decoder_cards(output: str | None = None) -> list[DecoderCard]:
    """All cards, or those of one kind of output, in the order they are listed to users."""
    return [card for card in _registry().values() if output in (None, card.output)]


def decoder_card(name: str) -> DecoderCard:
    """The card of a decoder.

    Raises:
        OptionError: no decoder of that name.
    """
    known("no decoder", [name], _registry())
    return _registry()[name]


def register_decoder(card: DecoderCard) -> DecoderCard:
    """Make a card of your own known by its name.

    Raises:
        OptionError: another card has that name.
    """
    other = _registry().setdefault(card.name, card)
    if other != card:
        raise OptionError(f"decoder {card.name!r} is registered already, for {other.repo or 'a given pipeline'}")
    return card

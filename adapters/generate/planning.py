"""How a wanted output will be met: which decoder, over which bridge - decided before anything is loaded or run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vitlens.adapters.generate.bridges import LinearBridge
from vitlens.adapters.generate.decoder_cards import KINDS, DecoderCard, Kind, decoder_cards
from vitlens.adapters.generate.mixture import Mixture
from vitlens.adapters.generate.outputs import check_path, kind_of
from vitlens.checks import one_of, whole
from vitlens.errors import OptionError, SpaceError
from vitlens.space import EmbeddingSpace

OF_DECODERS = ("decoder", "prompt", "negative_prompt", "steps", "guidance", "options")
"""Fields of a `Request` that a text, which nothing decodes, has no use for."""
BRIDGES = ("auto", "embedding", "text", "picture")


@dataclass(frozen=True)
class Request:
    """One wanted output.

    `prompt` is said to the decoder besides the inputs, at the end of theirs; `options` are further arguments of its pipeline
    (height, num_frames, audio_length_in_s ...); `path` is where the output is written as soon as it is made. Of `candidates`
    pictures the one is kept that the model itself finds nearest to the inputs (as DALL-E ranked its own, arXiv 2102.12092).
    """

    kind: Kind
    decoder: str | None = None
    bridge: Literal["auto", "embedding", "text", "picture"] = "auto"
    prompt: str = ""
    negative_prompt: str = ""
    steps: int | None = None
    guidance: float | None = None
    path: str | os.PathLike[str] | None = None
    candidates: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"output {self.kind!r}: known are {', '.join(KINDS)}, or a file name")
        if whole("candidates", self.candidates, least=1) > 1 and self.kind != "image":
            raise OptionError(f"output {self.kind}: candidates are pictures, which the model can look at; leave candidates at 1")
        one_of("bridge", self.bridge, BRIDGES)
        twice = [name for name in ("steps", "guidance") if name in self.options]
        if twice:
            own = twice[0]
            raise OptionError(f"output {self.kind}: {own} is none of the pipeline's own options; give Request({own}=...)")
        if self.path is not None:
            check_path(self.path, self.kind)

    @classmethod
    def of(cls, given: str | os.PathLike[str] | Request) -> Request:
        """From a kind ("image"), a file name ("beach.png"), or a request as it is.

        Raises:
            OptionError: neither a kind nor a file name with a suffix that is written.
        """
        if isinstance(given, Request):
            return given
        if isinstance(given, str) and given in KINDS:
            return cls(given)
        if isinstance(given, str) and "." not in given:
            raise OptionError(f"output {given!r}: known are {', '.join(KINDS)}, or a file name")
        return cls(kind_of(given), path=given)


@dataclass(frozen=True)
class Plan:
    """How a request will be met."""

    request: Request
    bridge: str
    card: DecoderCard | None = None
    map: LinearBridge | None = None
    picture: Plan | None = None
    """What makes the picture that the decoder starts from."""
    seed: int = 0

    def all(self) -> list[Plan]:
        """It, and what goes before it."""
        return [self, *(self.picture.all() if self.picture else [])]

    def seeded(self, seed: int) -> Plan:
        """With this seed, which what goes before it gets too."""
        return replace(self, seed=seed, picture=self.picture.seeded(seed) if self.picture else None)

    @property
    def fitted_length(self) -> float | None:
        """The length of the targets that its bridge was fitted on, unless they had been normalised."""
        return None if self.map is None or abs(self.map.norm - 1) < 1e-3 else self.map.norm


@dataclass(frozen=True)
class Planner:
    """What there is to plan with: the space of the model, decoders by name, bridges; whether inputs can be described."""

    space: EmbeddingSpace
    cards: Mapping[str, DecoderCard]
    bridges: Sequence[LinearBridge]
    has_words: bool

    def plan(self, request: Request, mixture: Mixture, lenient: bool = False) -> Plan:
        """The first decoder of the kind that will do; `lenient` allows another space of the same width.

        Raises:
            OptionError: no decoder, or words that it cannot have.
            SpaceError: embeddings of another space.
        """
        if request.kind == "text":
            foreign = [name for name in OF_DECODERS if getattr(request, name)]
            foreign += [] if request.bridge in ("auto", "text") else ["bridge"]
            if foreign:
                raise OptionError(f"a text has no {', '.join(foreign)}: it comes from the describer or the bank")
            self._need_words(mixture, "text")
            return Plan(request, "text")
        problems: list[Exception] = []
        for card in self._candidates(request, lenient):
            try:
                return self._plan_with(card, request, mixture, lenient)
            except (OptionError, SpaceError) as problem:
                problems.append(problem)
        raise problems[0]

    def _candidates(self, request: Request, lenient: bool) -> list[DecoderCard]:
        """The decoders that may meet a request, the likeliest first: of this space, by words, from a picture, of other spaces."""
        found = [card for card in self.cards.values() if card.output == request.kind and request.decoder in (None, card.name)]
        if not found:
            here = ", ".join(f"{card.name} ({card.output})" for card in self.cards.values()) or "none"
            known = ", ".join(card.name for card in decoder_cards(request.kind))
            asked = f" {request.decoder!r}" if request.decoder else ""
            raise OptionError(f"no decoder{asked} for {request.kind}; there are: {here}; cards for {request.kind}: {known}")
        return sorted(found, key=lambda card: self._rank(card, request, lenient))

    def _rank(self, card: DecoderCard, request: Request, lenient: bool) -> tuple[bool, int]:
        bridge = _bridge_of(card)
        other = bridge == "embedding" and card.space != self.space and self._bridge_to(card) is None
        if other and lenient and card.space is not None and card.space.dim == self.space.dim:
            other = False
        return request.bridge not in ("auto", bridge), 3 if other else ("embedding", "text", "picture").index(bridge)

    def _bridge_to(self, card: DecoderCard) -> LinearBridge | None:
        fitting = (b for b in self.bridges if b.source == self.space and b.target == card.space)
        return next(fitting, None) if card.space else None

    def _plan_with(self, card: DecoderCard, request: Request, mixture: Mixture, lenient: bool) -> Plan:
        bridge = _bridge_of(card)
        if request.bridge not in ("auto", bridge):
            raise OptionError(f"decoder {card.name} is driven by {bridge}, not by {request.bridge}")
        said = request.prompt or request.negative_prompt
        if said and card.text is None and (bridge == "embedding" or mixture.only_picture):
            raise OptionError(f"decoder {card.name} takes no text, found prompt {said!r}")
        if bridge == "embedding":
            return Plan(request, bridge, card, self._map(card, lenient))
        if bridge == "text":
            self._need_words(mixture, card.name)
            return Plan(request, bridge, card)
        drawn = Request("image", prompt=request.prompt, negative_prompt=request.negative_prompt)
        first = None if mixture.only_picture else self.plan(drawn, mixture, lenient)
        return Plan(request, bridge, card, picture=first)

    def _map(self, card: DecoderCard, lenient: bool) -> LinearBridge | None:
        found = self._bridge_to(card)
        if found is not None or card.space is None or card.space == self.space:
            return found
        same_width = card.space.dim == self.space.dim
        if lenient and same_width:
            return None
        raise SpaceError(
            f"decoder {card.name} takes embeddings of {named(card.space)}, the model gives {named(self.space)}"
            f"{' (same width, another space)' if same_width else ''}: fit a bridge (fit_bridge), or go by text (a decoder that "
            f"takes texts, with a describer or a bank){', or allow_other_space=True' if same_width else ''}"
        )

    def _need_words(self, mixture: Mixture, what: str) -> None:
        if mixture.needs_describing and not self.has_words:
            raise OptionError(
                f"{what} goes by text, and {', '.join(mixture.needs_describing)} must be described first: "
                f"give AnyToAny a describer= (an MLLM) or a bank= (TextBank(model, texts))"
            )


def _bridge_of(card: DecoderCard) -> Literal["embedding", "text", "picture"]:
    """How a decoder is driven."""
    return "embedding" if card.space else "picture" if card.picture else "text"


def named(space: EmbeddingSpace) -> str:
    """A space in messages."""
    return f"{space.name} ({space.dim})"

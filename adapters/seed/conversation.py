"""A conversation with SEED-LLaMA: messages of texts and images, the two prompt templates, generation options, and the reply."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

import PIL.Image
from torch import Tensor

from vitlens.adapters.seed.grammar import BEGIN, TOKENS, ImageVocabulary
from vitlens.checks import known, number, whole
from vitlens.errors import InputError, OptionError

Part = str | Tensor
"""A piece of a message: text, or the codes [32] of an image."""


@dataclass(frozen=True, eq=False)
class Turn:
    """What the user said and what the model replied; None: it is its turn."""

    user: tuple[Part, ...]
    reply: tuple[Part, ...] | None = None


History = tuple[Turn, ...]


@dataclass(frozen=True)
class Template:
    """How a model was taught to read a conversation; `gap` stands between `after` and a reply that starts with text."""

    before: str
    after: str
    gap: str

    def prompt(self, history: Sequence[Turn], vocabulary: ImageVocabulary, *, bos: str, force_image: bool = False) -> str:
        """The conversation as the text that is tokenised: one BOS in front, no EOS between the turns."""
        turns = []
        for turn in history:
            text = self.before + _written(turn.user, vocabulary) + self.after
            if turn.reply is not None:
                starts_with_text = bool(turn.reply) and isinstance(turn.reply[0], str)
                text += (self.gap if starts_with_text else "") + _written(turn.reply, vocabulary)
            turns.append(text)
        return bos + "\n".join(turns) + (BEGIN if force_image else "")


TEMPLATES = {
    "vicuna": Template(before="USER: ", after="\nASSISTANT:", gap=" "),
    "llama2": Template(before="[INST] ", after=" [/INST]\n", gap=""),
}
"""SEED-LLaMA-8B was made from Vicuna, SEED-LLaMA-14B from LLaMA-2 chat (arXiv 2310.01218)."""
_NAMES = ((r"vicuna|seed[-_]?llama[-_]?8b", "vicuna"), (r"llama[-_]?2|seed[-_]?llama[-_]?14b", "llama2"))


def template_named(template: str | Template | None, model: str) -> Template:
    """The template of that name (or as it is); None chooses by the model's name.

    Raises:
        OptionError: an unknown template, or a model whose name does not tell.
    """
    known = ", ".join(TEMPLATES)
    if isinstance(template, Template):
        return template
    if template is None:
        last = "/".join(PurePath(model).parts[-2:]).lower()  # of a folder its name counts, not where it lies
        found = next((name for pattern, name in _NAMES if re.search(pattern, last)), None)
        if found is None:
            raise OptionError(f"the name {model!r} does not tell which prompts the model knows: pass template= one of {known}")
        return TEMPLATES[found]
    if template not in TEMPLATES:
        raise OptionError(f"unknown template {template!r}; known: {known}")
    return TEMPLATES[template]


def _written(parts: Sequence[Part], vocabulary: ImageVocabulary) -> str:
    return "".join(part if isinstance(part, str) else vocabulary.text(part) for part in parts)


def checked_text(text: str, specials: Sequence[str]) -> str:
    """`text`, if no tokens that mean something to the model are written in it.

    Raises:
        InputError: image tokens, or one of the tokenizer's special tokens.
    """
    found = TOKENS.search(text)
    mark = found[0] if found else next((token for token in specials if token and token in text), None)
    if mark is not None:
        accepted = 'plain text; images go beside it: {"image": "a.jpg"}, {"codes": tensor}'
        raise InputError(f"<text {text[:40]!r}>", f"the token {mark} is written in it", accepted)
    return text


def harmless(text: str, specials: Sequence[str]) -> str:
    """A reply's text in which nothing reads as an image token or a special token when it is tokenised again."""
    for token in {*TOKENS.findall(text), *(token for token in specials if token and token in text)}:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text.strip()


@dataclass(frozen=True)
class Generation:
    """How a reply is generated; the defaults are SEED-LLaMA's. `temperature` 0 takes the likeliest token each time.

    `force_image` starts the reply with an image; `max_images` is the most it may hold (0: text alone); `draw` turns images into
    pictures where there is an unCLIP pipeline; `seed` makes a reply repeatable.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 0.5
    top_k: int = 50
    num_beams: int = 1
    seed: int | None = None
    force_image: bool = False
    max_images: int | None = None
    draw: bool = True

    def __post_init__(self) -> None:
        lowest = {"max_new_tokens": 1, "temperature": 0, "top_k": 0, "num_beams": 1, "max_images": 1 if self.force_image else 0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if value is not None:
                number(name, value, least=low) if name == "temperature" else whole(name, value, least=low)
        number("top_p", self.top_p, above=0, most=1)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Generation:
        """From keyword arguments.

        Raises:
            OptionError: an option that there is not, or a value that is not allowed.
        """
        known("unknown option", options, [field.name for field in fields(cls)])
        return cls(**options)

    def check_room(self, image: int) -> None:
        """Raises OptionError when a forced image of `image` codes would be cut off."""
        if self.force_image and self.max_new_tokens < image + 1:
            raise OptionError(
                f"force_image: an image needs {image + 1} new tokens ({image} codes and its end), "
                f"max_new_tokens is {self.max_new_tokens}"
            )

    def config(self, *, eos: int | None, pad: int) -> Any:
        """transformers' GenerationConfig; what it sets wins over the model's own."""
        from transformers import GenerationConfig

        sampling = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            num_beams=self.num_beams,
            repetition_penalty=1.0,  # codes repeat
            eos_token_id=eos,
            pad_token_id=pad,
            **(sampling if self.temperature > 0 else {"do_sample": False}),
        )


@dataclass(frozen=True, eq=False)
class Reply:
    """What the model answered, in order: `parts`; of its images `embeddings` [E] and, if drawn, `pictures`.

    Each embedding has its space as an attribute. Hand `history` to the next message to go on.
    """

    parts: tuple[Part, ...]
    history: History
    prompt: str
    embeddings: tuple[Tensor, ...] = ()
    pictures: tuple[PIL.Image.Image, ...] = ()

    @property
    def text(self) -> str:
        """Its texts, without the images between them."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def codes(self) -> list[Tensor]:
        """The codes [32] of its images."""
        return [part for part in self.parts if not isinstance(part, str)]

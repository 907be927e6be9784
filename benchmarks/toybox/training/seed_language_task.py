"""The training of the Toybox's SEED-LLaMA: one LLaMA over words and codes learns to describe, to draw, to edit and to compose.

Every line is a turn of the conversation that `SeedLlamaAdapter` has with it, in the same prompts and ids; what it replies is
learned. Codes come from pictures alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.adapters.seed.conversation import TEMPLATES
from vitlens.adapters.seed.grammar import ImageVocabulary
from vitlens.benchmarks.toybox.training.host import QUESTIONS, answer
from vitlens.benchmarks.toybox.training.host_task import AnswerLoss
from vitlens.benchmarks.toybox.training.picture_task import PictureTask, collate_padded, flip, pick
from vitlens.benchmarks.toybox.training.seed_networks import TEMPLATE, ClipQuantizer, SeedRecipe, build_language
from vitlens.benchmarks.toybox.training.seed_quantizer_task import QuantizerTask, hidden_states
from vitlens.benchmarks.toybox.training.seed_tasks import CAPTIONS, COMPOSE, DRAW, donors, edit_of
from vitlens.benchmarks.toybox.world.captions import describe
from vitlens.benchmarks.toybox.world.objects import ToyObject, World
from vitlens.errors import InputError
from vitlens.model import ViTLens
from vitlens.train import Trainer
from vitlens.train.examples import Example, TrainingBatch
from vitlens.train.gradcache import Named
from vitlens.train.task import Report

Said = str | list[int]
"""A text, or the codes of a picture."""
OFTEN = {"describe": 8, "draw": 3, "edit": 5, "compose": 4}
"""How often each task is drawn, of 20 times."""


class Replying(nn.Module):
    """Token ids of turns [b, n], padded with 0 -> {"cost": [b]}, the summed cross entropy of what is behind the prompt."""

    def __init__(self, language: Any) -> None:
        super().__init__()
        self.language = language

    def forward(self, line: Tensor, asked: Tensor) -> Named:
        """`asked` [b] says how many tokens of a line are the prompt."""
        logits = self.language(input_ids=line, attention_mask=(line != 0).long()).logits[:, :-1]
        cost = F.cross_entropy(logits.transpose(1, 2).float(), line[:, 1:], reduction="none")
        reply = (torch.arange(1, line.shape[1], device=line.device) >= asked[:, None]) & (line[:, 1:] != 0)
        return {"cost": (cost * reply).sum(dim=1)}


class LanguageTask(PictureTask[tuple[Any, Any]]):
    """A LLaMA over words and codes that learns from pictures, uint8 [2, n, 64, 64, 3]: of things, and of the things edited."""

    def __init__(
        self,
        folder: Path,
        quantizer: ClipQuantizer,
        pictures: Sequence[Tensor],
        things: Sequence[ToyObject],
        world: World,
        recipe: SeedRecipe,
    ) -> None:
        super().__init__(recipe.language, folder, recipe, len(things))
        self.quantizer, self.pictures, self.things = quantizer, pictures, things
        self.edits = [edit_of(thing, world) for thing in things]
        self.donors = donors(things)
        self.language, self.words = build_language(recipe)
        self.vocabulary = ImageVocabulary.from_tokenizer(self.words, codes=quantizer.codes, length=quantizer.queries)
        self.known: dict[str, list[int]] = {}
        self.turns = [turn for turn, times in OFTEN.items() for _ in range(times)]
        self.network, self.loss = Replying(self.language), AnswerLoss()

    def prepare(self, device: torch.device, report: Report) -> None:
        """The tokenizer turns every picture and its mirror image into codes once: [2 (edited), 2 (mirrored), n, q]."""
        self.quantizer.to(device)
        self.codes = torch.stack(
            [torch.stack([_codes(self.quantizer, x) for x in (part, part.flip(2))]) for part in self.pictures]
        )
        self.quantizer.to("cpu")

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """One turn about a thing: the ids of the line, and how many of them are the prompt."""
        user, reply = getattr(self, f"_{self.turns[pick(len(self.turns), chance)]}")(row, chance)
        asked, said = self.prompt(user), [*self.ids(reply), self.words.eos_token_id]
        inputs = {"line": torch.tensor([*asked, *said]), "asked": torch.tensor(len(asked))}
        return inputs, {"words": torch.tensor(len(said))}

    def prompt(self, user: Sequence[Said]) -> list[int]:
        """Ids of what the user says, as the adapter makes them."""
        template = TEMPLATES[TEMPLATE]
        return [
            self.words.bos_token_id,
            *(token for part in (template.before, *user, template.after) for token in self.ids(part)),
        ]

    def ids(self, part: Said) -> list[int]:
        """Ids of a text, or of codes with the image's begin and end."""
        if not isinstance(part, str):
            return self.vocabulary.ids(part)
        if part not in self.known:
            self.known[part] = self.words(part, add_special_tokens=False).input_ids
        return self.known[part]

    def _describe(self, row: int, chance: torch.Generator) -> tuple[tuple[Said, ...], Said]:
        thing, codes = self._either(row, chance)
        topic = "everything" if flip(chance) else list(QUESTIONS)[pick(len(QUESTIONS), chance)]
        return (codes, _one(QUESTIONS[topic][0], chance)), answer(thing, topic)

    def _draw(self, row: int, chance: torch.Generator) -> tuple[tuple[Said, ...], Said]:
        thing, codes = self._either(row, chance)
        return (_one(DRAW, chance).format(describe(thing, _one(CAPTIONS, chance))),), codes

    def _edit(self, row: int, chance: torch.Generator) -> tuple[tuple[Said, ...], Said]:
        mirrored = int(flip(chance))
        return (self._seen(row, mirrored), _one(self.edits[row].asked, chance)), self._seen(row, mirrored, edited=True)

    def _compose(self, row: int, chance: torch.Generator) -> tuple[tuple[Said, ...], Said]:
        """The thing, and another one of what its edit made of it: the edited thing comes of both."""
        mirrored, wanted = int(flip(chance)), self.edits[row].thing
        others = self.donors.get((wanted.material, wanted.colour))
        if others is None:  # in a small world nothing else is of that colour and material
            return self._edit(row, chance)
        other = self._seen(others[pick(len(others), chance)], int(flip(chance)))
        return (self._seen(row, mirrored), other, _one(COMPOSE, chance)), self._seen(row, mirrored, edited=True)

    def _either(self, row: int, chance: torch.Generator) -> tuple[ToyObject, list[int]]:
        edited = flip(chance)
        return self.edits[row].thing if edited else self.things[row], self._seen(row, int(flip(chance)), edited=edited)

    def _seen(self, row: int, mirrored: int, *, edited: bool = False) -> list[int]:
        return self.codes[int(edited), mirrored, row].tolist()

    @staticmethod
    def collate(loaded: Sequence[Example | InputError]) -> TrainingBatch:
        """Lines are padded to the longest of the batch."""
        return collate_padded(loaded, "line")

    def result(self) -> tuple[Any, Any]:
        """The LLaMA and its tokenizer."""
        return self.language.eval().requires_grad_(False), self.words


def train_seed(
    folder: str | os.PathLike[str],
    model: ViTLens,
    pictures: np.ndarray,
    edited: np.ndarray,
    things: Sequence[ToyObject],
    world: World,
    recipe: SeedRecipe | None = None,
) -> tuple[ClipQuantizer, Any, Any]:
    """Train a tiny SEED in `folder` on pictures, uint8 [n, 64, 64, 3], of things and of the same things `edited`.

    The tokenizer, the LLaMA and its tokenizer of words; an interrupted training goes on where it was.
    """
    recipe, home = recipe or SeedRecipe(), Path(folder)
    seen, changed = torch.from_numpy(pictures), torch.from_numpy(edited)
    quantizer = Trainer(QuantizerTask(home / "quantizer", model, seen, things, recipe)).run().model
    task = LanguageTask(home / "language", quantizer, (seen, changed), things, world, recipe)
    return quantizer, *Trainer(task).run().model


def _codes(quantizer: ClipQuantizer, pictures: Tensor) -> Tensor:
    hidden = hidden_states(quantizer, pictures)
    return torch.cat([quantizer.encode_hidden(part).cpu() for part in hidden.split(1000)])


def _one(lines: Sequence[str], chance: torch.Generator) -> str:
    return lines[pick(len(lines), chance)]

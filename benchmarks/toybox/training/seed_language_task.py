"""The training of the Toybox's SEED-LLaMA: one LLaMA over words and codes learns to describe, draw, edit, compose and tell.

Every line is a turn of the conversation that `SeedLlamaAdapter` has with it, in the same prompts and ids; what it replies is
learned. Codes come from pictures alone. Before some prompts stand captions and codes of what is nearest to them among known
things, as in CM3leon (arXiv 2309.02591): so it learns to make use of an index.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.adapters.seed.conversation import TEMPLATES
from vitlens.adapters.seed.grammar import ImageVocabulary
from vitlens.benchmarks.toybox.training.clip import normalised
from vitlens.benchmarks.toybox.training.host import QUESTIONS, answer
from vitlens.benchmarks.toybox.training.host_task import AnswerLoss
from vitlens.benchmarks.toybox.training.picture_task import PictureTask, collate_padded, flip, look, pick
from vitlens.benchmarks.toybox.training.seed_networks import TEMPLATE, ClipQuantizer, SeedRecipe, build_language
from vitlens.benchmarks.toybox.training.seed_quantizer_task import QuantizerTask, hidden_states
from vitlens.benchmarks.toybox.training.seed_tasks import CAPTIONS, COMPOSE, DRAW, STORY, TELL, donors, edit_of
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
Place = tuple[int, int, int]
"""Which picture: of the edited thing (1) or not (0), mirrored (1) or not (0), number of the thing."""
PARTS = defaultdict(lambda: 1, cpu=4)
"""Kind of device -> how many parts a batch is computed in."""
OFTEN = {"describe": 8, "draw": 3, "edit": 5, "compose": 4, "tell": 3}
"""How often each task is drawn, beside the others."""


@dataclass(frozen=True, eq=False)
class Turn:
    """What the user says and what is replied; `about` [E] is the embedding by which neighbours are found."""

    user: tuple[Said, ...]
    reply: Said
    about: Tensor


class Replying(nn.Module):
    """Token ids of turns [b, n], padded with 0 -> {"cost": [b]}, the summed cross entropy of what is behind the prompt."""

    def __init__(self, language: Any) -> None:
        super().__init__()
        self.language = language

    def forward(self, line: Tensor, asked: Tensor) -> Named:
        """`asked` [b] says how many tokens of a line are the prompt.

        On a processor lines of like lengths go together, so that less padding is computed; a GPU has the room.
        """
        lengths = (line != 0).sum(dim=1)
        order = lengths.argsort()
        parts = [self._costs(line[rows, : int(lengths[rows[-1]])], asked[rows]) for rows in order.chunk(PARTS[line.device.type])]
        return {"cost": torch.cat(parts)[order.argsort()]}

    def _costs(self, line: Tensor, asked: Tensor) -> Tensor:
        logits = self.language(input_ids=line, attention_mask=(line != 0).long()).logits[:, :-1]
        cost = F.cross_entropy(logits.transpose(1, 2).float(), line[:, 1:], reduction="none")
        reply = (torch.arange(1, line.shape[1], device=line.device) >= asked[:, None]) & (line[:, 1:] != 0)
        return (cost * reply).sum(dim=1)


class LanguageTask(PictureTask[tuple[Any, Any]]):
    """A LLaMA over words and codes that learns from pictures, uint8 [2, n, 64, 64, 3]: of things, and of the things edited."""

    def __init__(
        self,
        folder: Path,
        model: ViTLens,
        quantizer: ClipQuantizer,
        pictures: Sequence[Tensor],
        things: Sequence[ToyObject],
        world: World,
        recipe: SeedRecipe,
    ) -> None:
        super().__init__(recipe.language, folder, recipe, len(things))
        self.model, self.quantizer, self.pictures, self.things = model, quantizer, pictures, things
        self.edits = [edit_of(thing, world) for thing in things]
        self.donors = donors(things)
        self.language, self.words = build_language(recipe)
        self.vocabulary = ImageVocabulary.from_tokenizer(self.words, codes=quantizer.codes, length=quantizer.queries)
        self.spelled: dict[str, list[int]] = {}
        self.turns = [turn for turn, times in OFTEN.items() for _ in range(times)]
        self.network, self.loss = Replying(self.language), AnswerLoss()

    @torch.no_grad()
    def prepare(self, device: torch.device, report: Report) -> None:
        """Every picture and its mirror image become codes once, [2 (edited), 2 (mirrored), n, q], and every caption a vector."""
        self.quantizer.to(device)
        self.codes = torch.stack(
            [torch.stack([_codes(self.quantizer, x) for x in (part, part.flip(2))]) for part in self.pictures]
        )
        self.quantizer.to("cpu")
        known = self.pictures[0][: self.recipe.known]
        every = [*self.things, *(edit.thing for edit in self.edits)]
        lines = list(dict.fromkeys(describe(thing, template) for thing in every for template in CAPTIONS))
        self.look_up_in(
            look(known, normalised, self.model.tower("image"), self.model.device, torch.float32),
            dict(zip(lines, self.model.encode({"text": lines}, batch_size=256)["text"].float().cpu(), strict=True)),
        )

    @torch.no_grad()
    def look_up_in(self, known: Tensor, read: Mapping[str, Tensor]) -> None:
        """Take the embeddings of the known things' pictures [k, E] and of captions, and make those of all codes."""
        self.known, self.read = F.normalize(known, dim=-1), read
        flat = self.codes.flatten(0, 2).split(1000)
        decoded = torch.cat([F.normalize(self.quantizer.decode(part), dim=-1) for part in flat])
        self.embeddings = decoded.unflatten(0, self.codes.shape[:3])

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """One turn about a thing: the ids of the line, and how many are the prompt; both also with neighbours before it."""
        turn: Turn = getattr(self, f"_{self.turns[pick(len(self.turns), chance)]}")(row, chance)
        said = [*self.ids(turn.reply), self.words.eos_token_id]
        asked, longer = self.prompt(turn.user), self.prompt((*self.neighbours(turn.about, row), *turn.user))
        inputs = {
            "line": torch.tensor([*asked, *said]),
            "asked": torch.tensor(len(asked)),
            "longer_line": torch.tensor([*longer, *said]),
            "longer_asked": torch.tensor(len(longer)),
            "looked_up": torch.tensor(flip(chance, self.recipe.looked_up)),
        }
        return inputs, {"words": torch.tensor(len(said))}

    def neighbours(self, about: Tensor, row: int) -> tuple[Said, ...]:
        """Caption and codes of each of the known things that are nearest to what a turn is about [E], the thing itself aside."""
        near = (self.known @ about).topk(min(self.recipe.neighbours + 1, len(self.known))).indices.tolist()
        rows = [one for one in near if one != row][: self.recipe.neighbours]
        return tuple(part for one in rows for part in (describe(self.things[one], CAPTIONS[0]), self._seen((0, 0, one))))

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
        if part not in self.spelled:
            self.spelled[part] = self.words(part, add_special_tokens=False).input_ids
        return self.spelled[part]

    def _describe(self, row: int, chance: torch.Generator) -> Turn:
        thing, place = self._either(row, chance)
        topic = "everything" if flip(chance) else list(QUESTIONS)[pick(len(QUESTIONS), chance)]
        user = (self._seen(place), _one(QUESTIONS[topic][0], chance))
        return Turn(user, answer(thing, topic), self.embeddings[place])

    def _draw(self, row: int, chance: torch.Generator) -> Turn:
        thing, place = self._either(row, chance)
        caption = describe(thing, _one(CAPTIONS, chance))
        return Turn((_one(DRAW, chance).format(caption),), self._seen(place), self.read[caption])

    def _edit(self, row: int, chance: torch.Generator) -> Turn:
        mirrored = int(flip(chance))
        place, wanted = (0, mirrored, row), (1, mirrored, row)
        user = (self._seen(place), _one(self.edits[row].asked, chance))
        return Turn(user, self._seen(wanted), self.embeddings[place])

    def _compose(self, row: int, chance: torch.Generator) -> Turn:
        """The thing, and another one of what its edit made of it: the edited thing comes of both."""
        mirrored, wanted = int(flip(chance)), self.edits[row].thing
        others = self.donors.get((wanted.material, wanted.colour))
        if others is None:  # in a small world nothing else is of that colour and material
            return self._edit(row, chance)
        place, other = (0, mirrored, row), (0, int(flip(chance)), others[pick(len(others), chance)])
        user = (self._seen(place), self._seen(other), _one(COMPOSE, chance))
        return Turn(user, self._seen((1, mirrored, row)), self.embeddings[place] + self.embeddings[other])

    def _tell(self, row: int, chance: torch.Generator) -> Turn:
        """Three things, and what they are one after the other."""
        rows = (row, pick(len(self.things), chance), pick(len(self.things), chance))
        seen = [self._either(one, chance) for one in rows]
        said = ", ".join(line.format(answer(thing, "everything")) for line, (thing, _) in zip(STORY, seen, strict=True))
        about = torch.stack([self.embeddings[place] for _, place in seen]).sum(dim=0)
        return Turn((*(self._seen(place) for _, place in seen), _one(TELL, chance)), said, about)

    def _either(self, row: int, chance: torch.Generator) -> tuple[ToyObject, Place]:
        edited = flip(chance)
        return self.edits[row].thing if edited else self.things[row], (int(edited), int(flip(chance)), row)

    def _seen(self, place: Place) -> list[int]:
        codes: list[int] = self.codes[place].tolist()
        return codes

    @staticmethod
    def collate(loaded: Sequence[Example | InputError]) -> TrainingBatch:
        """All lines have neighbours before them, or none has: as the first one's chance has it; padded to the longest."""
        items = [item for item in loaded if isinstance(item, Example)]
        looked_up = bool(items[0].inputs["looked_up"])
        for item in items:
            longer = {name: item.inputs.pop(f"longer_{name}") for name in ("line", "asked")}
            item.inputs.pop("looked_up")
            item.inputs.update(longer if looked_up else {})
        return collate_padded(items, "line")

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
    task = LanguageTask(home / "language", model, quantizer, (seen, changed), things, world, recipe)
    return quantizer, *Trainer(task).run().model


def _codes(quantizer: ClipQuantizer, pictures: Tensor) -> Tensor:
    hidden = hidden_states(quantizer, pictures)
    return torch.cat([quantizer.encode_hidden(part).cpu() for part in hidden.split(1000)])


def _one(lines: Sequence[str], chance: torch.Generator) -> str:
    return lines[pick(len(lines), chance)]

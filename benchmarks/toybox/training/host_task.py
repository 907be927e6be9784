"""The training of the Toybox's language models: questions about pictures, and their answers.

The frozen ViT looks at every picture once; what follows it learns to answer from the tokens that its kind of host reads.

A lens trained through the embedding alone lets the rest of the class token's state drift, and a Q-Former does not find it among
the patch tokens (docs/tokens.md). It can learn to make do with the class token: of a share of the pictures (`alone`) it is shown
nothing else.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.adapters.chat.llava_prompt import conversation
from vitlens.benchmarks.toybox.training.clip import normalised
from vitlens.benchmarks.toybox.training.host import IMAGE, QUESTIONS, HostRecipe, answer, tokenizers
from vitlens.benchmarks.toybox.training.host_networks import build_host, kind_of
from vitlens.benchmarks.toybox.training.picture_task import PictureTask, collate_padded, flip, look, pick
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.errors import InputError
from vitlens.model import ViTLens
from vitlens.processes import world
from vitlens.train import Trainer
from vitlens.train.examples import Example, TrainingBatch
from vitlens.train.gradcache import Named
from vitlens.train.losses import gather_rows
from vitlens.train.task import Report


class Answering(nn.Module, ABC):
    """A host behind its eye: what it reads of pictures, and lines of question and answer -> {"cost": [b]}, the summed cross
    entropy of the answers' words. Padding is 0. A subclass says how the kind of host reads.
    """

    place = 0
    """How many of a line's tokens stand before those that stand for the picture."""

    def __init__(self, host: Any, speaker: Any) -> None:
        super().__init__()
        self.host, self.speaker = host, speaker

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without the mark for the picture."""
        return list(self.speaker(text).input_ids)

    def prompt(self, question: str) -> str:
        """What the language model is asked."""
        return question

    @abstractmethod
    def see(self, pixels: Tensor) -> Tensor:
        """Pictures [b, 3, 64, 64] -> the eye's tokens that the host reads [b, n, D]."""

    @abstractmethod
    def inputs(self, seen: Tensor, question: str, chance: torch.Generator) -> Named:
        """What `soft` takes of one picture, given its tokens [n, D] and what is asked about it."""

    @abstractmethod
    def soft(self, **read: Tensor) -> Tensor:
        """`inputs` of a batch -> what stands for the pictures in the language model [b, m, H]."""

    @abstractmethod
    def language(self) -> Any:
        """The module that gives logits from embeddings."""

    def forward(self, line: Tensor, asked: Tensor, **read: Tensor) -> Named:
        """`line` [b, n] are token ids; `asked` [b] says how many tokens of a line are the question."""
        soft, words = self.soft(**read), self.host.get_input_embeddings()(line)
        embedded = torch.cat([words[:, : self.place], soft, words[:, self.place :]], dim=1)
        mask = torch.cat([torch.ones_like(soft[..., 0], dtype=torch.long), (line != 0).long()], dim=1)
        logits = self.language()(inputs_embeds=embedded, attention_mask=mask).logits[:, soft.shape[1] - 1 : -1]
        cost = F.cross_entropy(logits.transpose(1, 2).float(), line, reduction="none")
        answer = (torch.arange(line.shape[1], device=line.device) >= asked[:, None]) & (line != 0)
        return {"cost": (cost * answer).sum(dim=1)}


class ThroughQFormer(Answering):
    """InstructBLIP: the Q-Former reads all of the ViT's tokens, or of a share `alone` of the pictures the class token alone."""

    def __init__(self, host: Any, speaker: Any, reader: Any, alone: float) -> None:
        super().__init__(host, speaker)
        self.reader, self.alone = reader, alone

    def see(self, pixels: Tensor) -> Tensor:
        return self.host.vision_model(pixels).last_hidden_state

    def inputs(self, seen: Tensor, question: str, chance: torch.Generator) -> Named:
        shown = torch.ones(len(seen), dtype=torch.long)
        if flip(chance, self.alone):
            shown[1:] = 0
        return {"seen": seen, "shown": shown, "question": torch.tensor(self.reader(question).input_ids)}

    def soft(self, *, seen: Tensor, shown: Tensor, question: Tensor) -> Tensor:  # type: ignore[override]
        queries = self.host.query_tokens.expand(len(seen), -1, -1)
        out = self.host.qformer(
            input_ids=question,
            attention_mask=torch.cat([torch.ones_like(queries[..., 0], dtype=torch.long), (question != 0).long()], dim=1),
            query_embeds=queries,
            encoder_hidden_states=seen,
            encoder_attention_mask=shown,
        ).last_hidden_state[:, : queries.shape[1]]
        return self.host.language_projection(out)

    def language(self) -> Any:
        return self.host.language_model


class ThroughProjector(Answering):
    """LLaVA: the patch tokens behind the last block but one, projected, stand in the prompt of LLaVA-1.5."""

    def __init__(self, host: Any, speaker: Any) -> None:
        super().__init__(host, speaker)
        self.mark = host.config.image_token_id
        self.place = super().ids(self.prompt("")).index(self.mark)

    def ids(self, text: str) -> list[int]:
        return [token for token in super().ids(text) if token != self.mark]

    def prompt(self, question: str) -> str:
        return conversation([f"{IMAGE}\n{question}"], [], self.speaker, "llava-1.5")

    def see(self, pixels: Tensor) -> Tensor:
        hidden = self.host.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        return hidden[self.host.config.vision_feature_layer][:, 1:]

    def inputs(self, seen: Tensor, question: str, chance: torch.Generator) -> Named:
        return {"seen": seen}

    def soft(self, *, seen: Tensor) -> Tensor:  # type: ignore[override]
        return self.host.model.multi_modal_projector(seen)

    def language(self) -> Any:
        return self.host


def behind_eye(host: Any, speaker: Any, reader: Any, *, alone: float = 0.0) -> Answering:
    """The part of a host that learns, as its kind reads."""
    return ThroughProjector(host, speaker) if kind_of(host) == "llava" else ThroughQFormer(host, speaker, reader, alone)


class AnswerLoss(nn.Module):
    """The mean over all words of the answers in the batch."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """`outputs`' "cost" [b] and the number of "words" [b] of this process' items -> the loss."""
        return outputs["cost"].sum() * world()[1] / gather_rows(targets["words"]).sum()


class HostTask(PictureTask[Any]):
    """A tiny host that learns to answer questions about pictures, uint8 [n, 64, 64, 3], of things."""

    network: Answering

    def __init__(self, folder: Path, model: ViTLens, pictures: Tensor, things: Sequence[ToyObject], recipe: HostRecipe) -> None:
        super().__init__(recipe.pace, folder, recipe, len(things))
        self.pictures, self.things = pictures, things
        self.speaker, self.reader = tokenizers(recipe.kind)
        self.host = build_host(recipe, model, self.speaker, self.reader)
        self.network, self.loss = behind_eye(self.host, self.speaker, self.reader, alone=recipe.alone), AnswerLoss()

    def prepare(self, device: torch.device, report: Report) -> None:
        """The frozen ViT looks at every picture and at its mirror image once, on the device: float16 [2, n, tokens, D]."""
        self.network.to(device)
        both = (self.pictures, self.pictures.flip(2))
        self.seen = torch.stack([look(x, normalised, self.network.see, device) for x in both])

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """A picture or its mirror image, a question about it, and the line of question and answer."""
        seen = self.seen[int(flip(chance)), row].float()
        topic = "everything" if flip(chance) else list(QUESTIONS)[pick(len(QUESTIONS), chance)]
        question = QUESTIONS[topic][0][pick(len(QUESTIONS[topic][0]), chance)]
        read = self.network.inputs(seen, question, chance)
        prompt = self.network.prompt(question)
        asked = len(self.network.ids(prompt))
        line = self.network.ids(f"{prompt} {answer(self.things[row], topic)} {self.speaker.eos_token}")
        inputs = {**read, "line": torch.tensor(line), "asked": torch.tensor(asked)}
        return inputs, {"words": torch.tensor(len(line) - asked)}

    @staticmethod
    def collate(loaded: Sequence[Example | InputError]) -> TrainingBatch:
        """Questions and lines are padded to the longest of the batch."""
        return collate_padded(loaded, "question", "line")

    def result(self) -> tuple[Any, Any, Any]:
        """Host and tokenizers."""
        return self.host.eval().requires_grad_(False), self.speaker, self.reader


def train_host(
    folder: str | os.PathLike[str],
    model: ViTLens,
    pictures: np.ndarray,
    things: Sequence[ToyObject],
    recipe: HostRecipe | None = None,
) -> tuple[Any, Any, Any]:
    """Teach a tiny host in `folder`; host and tokenizers. An interrupted training goes on where it was."""
    task = HostTask(Path(folder), model, torch.from_numpy(pictures), things, recipe or HostRecipe())
    return Trainer(task).run().model

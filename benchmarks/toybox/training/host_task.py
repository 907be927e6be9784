"""The training of the Toybox's language model: questions about pictures, and their answers.

A lens trained through the embedding alone lets the rest of the class token's state drift, and a Q-Former does not find it among
the patch tokens (docs/tokens.md). So this one learns to make do with the class token: of half of the pictures (`alone`) it is
shown nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vitlens.benchmarks.toybox.training.clip import normalised
from vitlens.benchmarks.toybox.training.host import QUESTIONS, HostRecipe, answer, build_host, tokenizers
from vitlens.benchmarks.toybox.training.picture_task import PictureTask, flip, pick
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.errors import InputError
from vitlens.model import ViTLens
from vitlens.processes import world
from vitlens.train import Trainer
from vitlens.train.examples import Example, TrainingBatch
from vitlens.train.gradcache import Named
from vitlens.train.losses import gather_rows
from vitlens.train.task import Report


class Answering(nn.Module):
    """The host on top of its eye: the ViT's tokens [b, 65, D] of pictures (`shown` [b, 65] of them) and a question's token ids ->
    {"cost": [b]}, the summed cross entropy of the answer's words. A line holds question and answer; padding is 0.
    """

    def __init__(self, host: Any) -> None:
        super().__init__()
        self.host = host

    def forward(self, seen: Tensor, shown: Tensor, question: Tensor, line: Tensor, asked: Tensor) -> Named:
        """`asked` [b] says how many tokens of a line are the question."""
        host, queries = self.host, self.host.query_tokens.expand(len(seen), -1, -1)
        out = host.qformer(
            input_ids=question,
            attention_mask=torch.cat([torch.ones_like(queries[..., 0], dtype=torch.long), (question != 0).long()], dim=1),
            query_embeds=queries,
            encoder_hidden_states=seen,
            encoder_attention_mask=shown,
        ).last_hidden_state[:, : queries.shape[1]]
        soft = host.language_projection(out)
        embedded = torch.cat([soft, host.get_input_embeddings()(line)], dim=1)
        mask = torch.cat([torch.ones_like(soft[..., 0], dtype=torch.long), (line != 0).long()], dim=1)
        logits = host.language_model(inputs_embeds=embedded, attention_mask=mask).logits[:, soft.shape[1] - 1 : -1]
        cost = F.cross_entropy(logits.transpose(1, 2).float(), line, reduction="none")
        answer = (torch.arange(line.shape[1], device=line.device) >= asked[:, None]) & (line != 0)
        return {"cost": (cost * answer).sum(dim=1)}


class AnswerLoss(nn.Module):
    """The mean over all words of the answers in the batch."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """`outputs`' "cost" [b] and the number of "words" [b] of this process' items -> the loss."""
        return outputs["cost"].sum() * world()[1] / gather_rows(targets["words"]).sum()


class HostTask(PictureTask[Any]):
    """A tiny InstructBLIP that learns to answer questions about pictures, uint8 [n, 64, 64, 3], of things."""

    def __init__(self, folder: Path, model: ViTLens, pictures: Tensor, things: Sequence[ToyObject], recipe: HostRecipe) -> None:
        super().__init__(recipe.pace, folder, recipe, len(things))
        self.pictures, self.things = pictures, things
        self.speaker, self.reader = tokenizers()
        self.host = build_host(recipe, model, self.speaker, self.reader)
        self.network, self.loss = Answering(self.host), AnswerLoss()

    def prepare(self, device: torch.device, report: Report) -> None:
        """The frozen ViT looks at every picture once."""
        self.seen = _seen(self.host, self.pictures)

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """A picture or its mirror image, a question about it, and the line of question and answer."""
        seen = self.seen[int(flip(chance)), row].float()
        topic = "everything" if flip(chance) else list(QUESTIONS)[pick(len(QUESTIONS), chance)]
        question = QUESTIONS[topic][0][pick(len(QUESTIONS[topic][0]), chance)]
        shown = torch.ones(len(seen), dtype=torch.long)
        if flip(chance, self.recipe.alone):
            shown[1:] = 0  # the class token alone
        line = self.speaker(f"{question} {answer(self.things[row], topic)} {self.speaker.eos_token}").input_ids
        asked = len(self.speaker(question).input_ids)
        inputs = {"question": self.reader(question).input_ids, "line": line, "asked": asked}
        tensors = {name: torch.tensor(value) for name, value in inputs.items()}
        return {"seen": seen, "shown": shown, **tensors}, {"words": torch.tensor(len(line) - asked)}

    @staticmethod
    def collate(loaded: Sequence[Example | InputError]) -> TrainingBatch:
        """Questions and lines are padded to the longest of the batch."""
        items = [item for item in loaded if isinstance(item, Example)]
        for name in ("question", "line"):
            padded = pad_sequence([item.inputs[name] for item in items], batch_first=True)
            for item, ids in zip(items, padded, strict=True):
                item.inputs[name] = ids
        return PictureTask.collate(items)

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
    """Teach a tiny InstructBLIP in `folder`; host and tokenizers. An interrupted training goes on where it was."""
    task = HostTask(Path(folder), model, torch.from_numpy(pictures), things, recipe or HostRecipe())
    return Trainer(task).run().model


@torch.inference_mode()
def _seen(host: Any, pictures: Tensor) -> Tensor:
    """The ViT's tokens of pictures and of their mirror images, float16 [2, n, 65, D]: the frozen part runs once."""

    def run(part: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return host.vision_model(normalised(part)).last_hidden_state.half()

    return torch.stack([torch.cat([run(part) for part in x.split(250)]) for x in (pictures, pictures.flip(2))]).clone()

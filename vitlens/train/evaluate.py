"""Zero-shot classification while training: the sensor's embeddings of labelled items against class vectors made of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from vitlens.errors import InputError, OptionError
from vitlens.modality import Modality
from vitlens.model import ViTLens
from vitlens.processes import world
from vitlens.train.recipe import EvaluationOptions
from vitlens.train.records import Reader, Records, texts_of
from vitlens.train.task import Accuracy

KEEP_BYTES = 1 << 28


class ZeroShot:
    """A labelled table and its class vectors, ready to be asked again and again."""

    def __init__(self, table: Records, modality: Modality, options: EvaluationOptions, *, num_workers: int = 0) -> None:
        self.reader = Reader(
            table, modality, column=options.columns.get(modality.name), read_options=options.read_options.get(modality.name)
        )
        if options.label not in table.columns:
            raise OptionError(f"{table.name}: no column {options.label!r} with labels (its columns: {', '.join(table.columns)})")
        labels = [_label(table, row, options.label) for row in range(len(table))]
        self.classes = list(options.classes) or sorted({label for label in labels if label})
        known = {label: number for number, label in enumerate(self.classes)}
        self.targets = [known.get(label, -1) for label in labels]
        if len(self.classes) < 2 or max(self.targets) < 0:
            raise OptionError(f"{table.name}: evaluation needs at least two classes, and items that have one of them")
        self.templates = options.templates
        self.batch_size = options.batch_size
        self.num_workers = num_workers
        self.vectors: Tensor | None = None
        self._kept: list[tuple[Tensor, Tensor, int]] | None = None

    def prepare(self, model: ViTLens) -> None:
        """Compute the class vectors with the anchors' text tower."""
        self.vectors = model.class_vectors(self.classes, templates=self.templates)

    @torch.no_grad()
    def score(self, embed: Callable[[Tensor], Tensor], device: torch.device) -> Accuracy:
        """Evaluate `embed` ([b, ...] -> normalised [b, E]); processes share the items."""
        if self.vectors is None:
            raise RuntimeError("prepare() comes first")
        vectors = self.vectors.to(device)
        totals = torch.zeros(4, dtype=torch.float64)
        for inputs, targets, skipped in self._batches():
            totals[3] += skipped
            if len(inputs):
                scores = embed(inputs.to(device)).float() @ vectors.T
                hits = scores.topk(min(5, len(self.classes)), dim=-1).indices.cpu() == targets[:, None]
                totals[:3] += torch.tensor([hits[:, 0].sum(), hits.any(dim=1).sum(), len(targets)], dtype=torch.float64)
        if world()[1] > 1:
            summed = totals.to(device)
            torch.distributed.all_reduce(summed)
            totals = summed.cpu()
        top1, top5, items, skipped_all = totals.tolist()
        return Accuracy(top1 / max(items, 1), top5 / max(items, 1), int(items), int(skipped_all))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """(inputs, targets, number skipped); what fits into `KEEP_BYTES` is read and preprocessed once for all evaluations."""
        if self._kept is not None:
            yield from self._kept
            return
        from torch.utils.data import DataLoader

        rank, count = world()
        rows = [row for row, target in enumerate(self.targets) if target >= 0][rank::count]
        loader = DataLoader(
            cast(Any, _Inputs(self.reader, rows)),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # an evaluation must not touch the generator of the network
        )
        kept: list[tuple[Tensor, Tensor, int]] | None = []
        size = 0
        for loaded in loader:
            good = [(row, x) for row, x in loaded if x is not None]
            inputs = torch.stack([x for _, x in good]) if good else torch.empty(0)
            batch = inputs, torch.tensor([self.targets[row] for row, _ in good]), len(loaded) - len(good)
            size += inputs.numel() * inputs.element_size()
            kept = [*kept, batch] if kept is not None and size <= KEEP_BYTES else None
            yield batch
        self._kept = kept


def _label(table: Records, row: int, column: str) -> str:
    """A row's label; none for a row that cannot be read."""
    try:
        return "".join(texts_of(table.rows[row].get(column), None)[:1])
    except InputError:
        return ""


@dataclass
class _Inputs:
    """Number -> (row, preprocessed tensor, or None when it cannot be read); crosses into loader workers."""

    reader: Reader
    rows: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None]:
        row = self.rows[index]
        try:
            return row, self.reader.modality.transform(self.reader.load(row))
        except InputError:
            return row, None

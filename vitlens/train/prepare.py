"""What stands before the first step: the model, the data, the anchors on disk, the evaluation, and the order of the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from vitlens.encoder import LensEncoder
from vitlens.errors import ModalityError
from vitlens.modality import modality_class
from vitlens.model import ViTLens
from vitlens.train.anchors import AnchorTable
from vitlens.train.anchors import Progress as Report
from vitlens.train.evaluate import ZeroShot
from vitlens.train.items import BadItems, Order
from vitlens.train.recipe import Recipe
from vitlens.train.records import Captions, Reader, Table, open_table
from vitlens.train.start import load_anchors, with_new_encoder

Rows = str | Path | Sequence[Mapping[str, Any]]


class Prepared:
    """A run's parts. The random initial weights of a new encoder follow from the recipe's seed."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        anchors: ViTLens | None,
        train: Rows,
        evaluation: Rows | None,
        device: torch.device,
        report: Report,
    ) -> None:
        self.recipe = recipe
        self.name = recipe.model.modality
        torch.manual_seed(recipe.seed)
        self.model = with_new_encoder(anchors or load_anchors(recipe), recipe)
        self.encoder = cast(LensEncoder, self.model.encoders[self.name])
        if recipe.model.lora:
            from vitlens.train.lora import add_lora

            add_lora(self.encoder.vit, recipe.model.lora)
        self._check_anchors()
        self.table = open_table(train, name="train")
        self.reader = self._reader(self.table, self.name)
        self.model.to(device)
        self.anchors = self._anchors()
        self.computed = self.anchors.fill(recipe.anchors.cache_folder, report) if recipe.anchors.cache else 0
        self.zero_shot = None if evaluation is None else self._zero_shot(evaluation)
        if recipe.anchors.cache:
            self.model.to("cpu")  # from here on anchors come from the disk: their towers need no room on the device
        self.bad = BadItems(recipe.data.max_bad_share, len(self.table))
        self.bad.add([(self.reader.name(row), why) for row, why in sorted(self.anchors.unusable.items())])
        self.order = self._order()
        whole = self.order.steps * recipe.schedule.epochs
        self.total = min(whole, recipe.schedule.max_steps or whole)
        """Optimiser steps of the run."""

    def _check_anchors(self) -> None:
        for name in self.recipe.anchors.modalities:
            if name == self.name or not self.model.supports(name):
                known = ", ".join(m for m in self.model.modalities if m != self.name)
                raise ModalityError(f"anchors.modalities: {name!r} cannot be an anchor; {self.model.spec.name} has {known}")

    def _reader(self, table: Table, name: str) -> Reader:
        data = self.recipe.data
        return Reader(table, self.model.modality(name), column=data.columns.get(name), read_options=data.read_options.get(name))

    def _anchors(self) -> AnchorTable:
        options, data = self.recipe.anchors, self.recipe.data
        words = [name for name in options.modalities if modality_class(name).tower == "text"]
        captions = None
        if words:
            columns = [data.columns[words[0]]] if words[0] in data.columns else data.captions
            captions = Captions(
                self.table, columns=columns, separator=data.caption_separator, label=data.label, templates=data.templates
            )
        return AnchorTable(
            self.model,
            self.table,
            options.modalities,
            readers={name: self._reader(self.table, name) for name in options.modalities if name not in words},
            captions=captions,
            batch_size=options.batch_size,
            dtype={"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.recipe.precision),
            num_workers=data.num_workers,
        )

    def _zero_shot(self, rows: Rows) -> ZeroShot:
        data, options = self.recipe.data, self.recipe.evaluation
        columns, read_options = {**data.columns, **options.columns}, {**data.read_options, **options.read_options}
        options = replace(options, columns=columns, read_options=read_options)
        found = ZeroShot(
            open_table(rows, name="evaluation"), self.model.modality(self.name), options, num_workers=data.num_workers
        )
        found.prepare(self.model)
        return found

    def _order(self) -> Order:
        recipe = self.recipe
        groups, window = self.table.groups, recipe.data.shard_window
        return Order(self.anchors.usable(), recipe.batch_size, recipe.seed, groups, window, recipe.data.repeat)

    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run must find again beside its recipe: the data and the anchors' weights."""
        return {"train": self.table.fingerprint, "usable": len(self.order.usable), "anchors": dict(self.anchors.hashes)}

"""LensTask: the training of a lens - a new encoder whose embeddings are to be those that frozen anchors give of the same thing.

    Trainer(LensTask(recipe, model=clip, train=rows, evaluation=labelled_rows)).run()

Anchors come from the disk; the encoder is alone in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.display.terminal import remark
from vitlens.encoder import LensEncoder
from vitlens.errors import ModalityError, OptionError
from vitlens.modality import modality_class
from vitlens.model import ViTLens
from vitlens.processes import world
from vitlens.store.engine import Engine
from vitlens.train.anchors import AnchorTable
from vitlens.train.evaluate import ZeroShot
from vitlens.train.examples import BadItems, Order, TrainingBatch, seed_of
from vitlens.train.frozen import into_file
from vitlens.train.gradcache import Named
from vitlens.train.items import TrainItems, tries_for
from vitlens.train.losses import AnchorLoss, LogitScale, chance_loss
from vitlens.train.picture_tokens import PictureTargets, PictureTokens, check_tokens, picture_tokens
from vitlens.train.recipe import Recipe, require
from vitlens.train.records import Captions, Reader, Records, open_records
from vitlens.train.start import IMAGE, anchor_name, load_anchors, train_mode, with_new_encoder
from vitlens.train.task import Accuracy, Report, Task
from vitlens.train.token_terms import TokenLook, TokenLoss
from vitlens.vit import FrozenViT
from vitlens.words import distinct, said_same, unknown_words

Rows = str | Path | Sequence[Mapping[str, Any]]


class LensNetwork(nn.Module):
    """Sensor tensors x [b, ...] -> {"embedding": [b, E]}, normalised, float32; and what `look` takes of the ViT's tokens."""

    def __init__(self, encoder: LensEncoder, look: TokenLook | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.look = look

    def forward(self, x: Tensor) -> Named:
        if self.look is None:
            return {"embedding": F.normalize(self.encoder(x).float(), dim=-1)}
        embedding, hidden = self.encoder.look_through(x, self.look.layers)
        seen = self.look(cast(FrozenViT, self.encoder.vit), hidden)
        return {"embedding": F.normalize(embedding.float(), dim=-1), **seen}


class LensTask(Task[ViTLens]):
    """Training one encoder against frozen anchors; the result is a model of the encoder beside its anchors.

    `model` holds the anchors (None: the recipe names them); `train` and `evaluation` are manifests, shards, or sequences of
    mappings such as {"audio": waveform, "image": "a.png", "text": "a dog", "label": "dog"} (None: the recipe's).

    Raises:
        OptionError: no data, or a recipe that does not fit together.
    """

    options: Recipe
    loss: AnchorLoss | TokenLoss
    network: LensNetwork
    output = "embedding"

    def __init__(
        self, recipe: Recipe, *, model: ViTLens | None = None, train: Rows | None = None, evaluation: Rows | None = None
    ) -> None:
        recipe = require(recipe)
        if model is None and recipe.anchors.model is None:
            recipe = replace(recipe, anchors=replace(recipe.anchors, model=anchor_name(recipe)))
        train = train if train is not None else recipe.data.train
        if train is None:
            raise OptionError("no training data: data.train names a manifest or shards (--set data.train=FILE)")
        super().__init__(recipe)
        chance = chance_loss(recipe.batch_size, len(recipe.anchors.modalities))
        self.chance = None if recipe.tokens.on else chance  # nobody knows what a guess gives of the other terms
        self.recipe, self.name = recipe, recipe.model.modality
        self.num_workers = recipe.data.num_workers
        self._given = model, train, evaluation if evaluation is not None else recipe.evaluation.data
        self.anchors_computed = 0
        """Anchors that were not on disk yet."""

    # --- before the first step -----------------------------------------------------------------------------------------

    def prepare(self, device: torch.device, report: Report) -> None:
        """Model, data, anchors, evaluation. The random initial weights of a new encoder follow from the recipe's seed."""
        (model, train, evaluation), recipe = self._given, self.recipe
        if recipe.model.lora and recipe.parallel == "fsdp2" and world()[1] > 1:
            raise OptionError("model.lora trains few parameters: use parallel=ddp with it, fsdp2 does not shard it")
        torch.manual_seed(recipe.seed)
        self.model = with_new_encoder(model or load_anchors(recipe), recipe)
        encoder = cast(LensEncoder, self.model.encoders[self.name])
        if recipe.model.lora:
            from vitlens.train.lora import add_lora

            add_lora(encoder.vit, recipe.model.lora)
        self._check_anchors()
        self.table = open_records(train, name="train")
        self.reader = self._reader(self.table, self.name)
        self.model.to(device)
        self.anchors = self._anchors()
        self._check_captions()
        self.anchors_computed = self.anchors.fill(recipe.anchors.cache_folder, report) if recipe.anchors.cache else 0
        self._prepare_tokens(report)
        self.zero_shot = None if evaluation is None else self._zero_shot(evaluation)
        self.every_epochs = None if evaluation is None else recipe.evaluation.every_epochs
        if recipe.anchors.cache:
            self.model.to("cpu")  # from here on anchors come from the disk: their towers need no room on the device
        from_pixels = self.targeted is not None and self.targeted.from_pixels
        if from_pixels:
            self.model.tower("image").to(device)
        self.bad = BadItems(recipe.data.max_bad_share, len(self.table))
        self.bad.add([(self.reader.name(row), why) for row, why in sorted(self.anchors.unusable.items())])
        self.order = self._order()
        along = {} if recipe.anchors.cache else self.anchors.readers
        if from_pixels:
            along = {**along, IMAGE: self.anchors.readers[IMAGE]}
        self.items = TrainItems(
            self.reader, self.order.usable, recipe.seed, recipe.data.augment, along, tries_for(recipe.data.max_bad_share)
        )
        self._learn(encoder)
        if recipe.anchors.cache and not from_pixels and device.type == "cpu":
            busy = set(self.network.parameters())
            into_file((p for p in self.model.parameters() if p not in busy), recipe.folder)

    def _learn(self, encoder: LensEncoder) -> None:
        """Network and loss; nothing but a temperature is nothing that trains."""
        options = self.recipe.loss
        encoder.vit.gradient_checkpointing = self.recipe.gradient_checkpointing
        look = None if self.pictures is None else TokenLook(self.recipe.tokens, self.pictures.readers)
        self.network = LensNetwork(encoder, look)
        if not any(p.requires_grad for p in encoder.parameters()):
            raise OptionError("nothing trains: there is no ModEmbed or lens to train, and model.trains names nothing")
        initial = options.initial_scale or self.model.logit_scale
        scale = LogitScale(initial, max_scale=options.max_scale, learn=options.learn_scale)
        self.loss = AnchorLoss(scale, ignore_duplicates=options.ignore_duplicates)
        if self.pictures is not None:
            known, tokens = self.pictures, self.recipe.tokens
            self.loss = TokenLoss(self.loss, tokens, known.statistics, pool=known.pool, seed=self.recipe.seed)

    def _prepare_tokens(self, report: Report) -> None:
        """What the terms on tokens know of pictures, and their targets; without terms nothing."""
        recipe, tokens, anchors = self.recipe, self.recipe.tokens, self.anchors
        self.pictures: PictureTokens | None = None
        self.targeted: PictureTargets | None = None
        if not tokens.on:
            return
        vit = cast(LensEncoder, self.model.encoders[self.name]).vit
        check_tokens(tokens, vit, self.model, anchors.modalities, augment=recipe.data.augment)
        folder = recipe.anchors.cache_folder
        self.targeted = PictureTargets(self.model, anchors, tokens, cache=recipe.anchors.cache)
        self.targeted.fill(folder, report)
        reader, usable = anchors.readers[IMAGE], anchors.usable()
        self.pictures = picture_tokens(anchors.engine, reader, usable, tokens, seed=recipe.seed, folder=folder, report=report)

    def _check_anchors(self) -> None:
        for name in self.recipe.anchors.modalities:
            if name == self.name or not self.model.supports(name):
                known = ", ".join(m for m in self.model.modalities if m != self.name)
                raise ModalityError(f"anchors.modalities: {name!r} cannot be an anchor; {self.model.spec.name} has {known}")

    def _check_captions(self) -> None:
        """Say which captions the text anchor does not know or cannot tell apart.

        Raises:
            OptionError: it cannot tell any from any other.
        """
        texts = self.anchors.captions.texts if self.anchors.captions else []
        if not texts:
            return
        text = self.model.modality(self.anchors.text)
        said = said_same(text, {one: [one] for one in texts}, "captions")
        if said and len(distinct(text, texts)) == 1:
            raise OptionError(f"{said}; nothing can be learned from them")
        if world()[0] == 0 and (said := said or unknown_words(text, texts)):
            remark(said)

    def _reader(self, table: Records, name: str) -> Reader:
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
            Engine(self.model, options.batch_size, data.num_workers, self.recipe.precision),
            self.table,
            options.modalities,
            readers={name: self._reader(self.table, name) for name in options.modalities if name not in words},
            captions=captions,
        )

    def _zero_shot(self, rows: Rows) -> ZeroShot:
        data, options = self.recipe.data, self.recipe.evaluation
        columns, read_options = {**data.columns, **options.columns}, {**data.read_options, **options.read_options}
        options = replace(options, columns=columns, read_options=read_options)
        found = ZeroShot(
            open_records(rows, name="evaluation"), self.model.modality(self.name), options, num_workers=data.num_workers
        )
        found.prepare(self.model)
        return found

    def _order(self) -> Order:
        recipe, data = self.recipe, self.recipe.data
        usable, groups = self.anchors.usable(), self.table.groups
        return Order(usable, recipe.batch_size, recipe.seed, groups, data.shard_window, data.repeat)

    def identity(self) -> dict[str, Any]:
        """The recipe, the data, and the anchors' weights."""
        inputs = {"train": self.table.fingerprint, "usable": len(self.order.usable), "anchors": dict(self.anchors.engine.hashes)}
        if self.pictures is not None:
            inputs["picture_tokens"] = self.pictures.key
        return {**self.recipe.identity(), "inputs": inputs}

    # --- while it trains -----------------------------------------------------------------------------------------------

    def targets(self, batch: TrainingBatch) -> Mapping[str, Tensor]:
        """The batch's anchors {modality: [b, E]}: from the disk, or through their towers."""
        rows, device = np.array(batch.rows, np.int64), batch.inputs["x"].device
        chance = [seed_of(self.recipe.seed, "caption", *key) for key in zip(batch.epochs, batch.rows, strict=True)]
        captions = np.array(chance, np.int64)
        of_pictures = {} if self.targeted is None else self.targeted.of(rows, batch.targets.get(IMAGE), device)
        if self.recipe.anchors.cache:
            found = self.anchors.lookup(rows, captions)
            return {name: anchor.to(device, non_blocking=True) for name, anchor in found.items()} | of_pictures
        inputs = {**batch.targets, **self.anchors.text_inputs(rows, captions)}
        found = {name: F.normalize(self.model.tower(name)(x.to(device)).float(), dim=-1) for name, x in inputs.items()}
        return found | of_pictures

    def train_mode(self, network: nn.Module) -> None:
        """Only what trains is in training mode."""
        train_mode(cast(LensNetwork, network).encoder)

    def units(self, network: nn.Module) -> Iterable[nn.Module]:
        """The blocks of the ViT."""
        return cast(LensNetwork, network).encoder.vit.blocks

    def after_step(self) -> None:
        """Keep the temperature within its bounds."""
        self.loss.scale.clamp_()

    def logged(self) -> dict[str, float]:
        """The temperature, and the terms on tokens."""
        terms = self.loss.values if isinstance(self.loss, TokenLoss) else {}
        return {"logit_scale": self.loss.scale.value, **terms}

    def evaluate(self, network: Callable[[Named], Named], device: torch.device) -> Accuracy | None:
        """Zero-shot classification of the labelled items."""
        return None if self.zero_shot is None else self.zero_shot.score(lambda x: network({"x": x})["embedding"], device)

    # --- after the last step -------------------------------------------------------------------------------------------

    def result(self) -> ViTLens:
        """The encoder beside its anchors, with the temperature that was learned."""
        encoder = self.network.encoder
        encoder.vit.gradient_checkpointing = False
        if self.recipe.model.lora:
            from vitlens.train.lora import merge_lora

            merge_lora(encoder.vit)
        model = self.model.to("cpu").eval()
        model.logit_scale = float(self.loss.scale().detach())
        return model

    def save(self, model: ViTLens, folder: Path) -> None:
        """`model`, for `vitlens.load`."""
        model.save_pretrained(folder / "model")

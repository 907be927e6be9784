"""What trains and what does not, as a table: built on the meta device, so that a bigG recipe costs nothing to look at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from vitlens.display.table import Table
from vitlens.encoder import LensEncoder, build_encoder
from vitlens.train.losses import LogitScale
from vitlens.train.optimizer import has_decay
from vitlens.train.picture_tokens import POOL
from vitlens.train.recipe import Recipe, require
from vitlens.train.start import anchor_name, anchor_spec, encoder_spec


@dataclass(frozen=True)
class Row:
    """A group of parameters that share their fate."""

    group: str
    tensors: int
    parameters: int
    trains: bool
    decay: bool


@dataclass(frozen=True)
class ParameterTable:
    """The parameters of a run: the sensor's encoder (names `encoders.<modality>.*`, as in its weights file) and logit_scale."""

    rows: tuple[Row, ...]
    trainable: tuple[str, ...]
    no_decay: tuple[str, ...]
    trainable_parameters: int
    frozen_parameters: int

    def table(self) -> Table:
        """The table, with the sums of what trains and what does not."""
        rows = [
            (row.group, "trains" if row.trains else "frozen", _decay(row), f"{row.tensors:,}", f"{row.parameters:,}")
            for row in self.rows
        ]
        sums = [("trains", "", "", f"{len(self.trainable):,}", f"{self.trainable_parameters:,}")]
        sums += [("frozen", "", "", "", f"{self.frozen_parameters:,}")]
        return Table(
            ("group", "fate", "weight decay", "tensors", "parameters"), [*rows, *sums], numbers=("tensors", "parameters")
        )


def _decay(row: Row) -> str:
    return ("yes" if row.decay else "no") if row.trains else ""


def parameter_table(recipe: Recipe) -> ParameterTable:
    """The table of a recipe, without weights or data.

    Raises:
        OptionError, ModalityError: as building the model for real would.
    """
    from vitlens.train.lora import add_lora

    recipe = require(recipe)
    spec = encoder_spec(recipe, anchor_spec(recipe))
    with torch.device("meta"):
        encoder = build_encoder(spec)
        if recipe.model.lora:
            add_lora(encoder.vit, recipe.model.lora)
        scale = LogitScale(1.0, learn=recipe.loss.learn_scale)
    return table_of(encoder, scale, spec.modality)


def table_of(encoder: LensEncoder, scale: LogitScale, modality: str) -> ParameterTable:
    """The table of an encoder and its temperature; a tensor used at several places counts once."""
    named = [(f"encoders.{modality}.{name}", p) for name, p in encoder.named_parameters()]
    named += [("logit_scale", scale.log_scale)]
    decays = {name: has_decay(name, p) and name != "logit_scale" for name, p in named}
    trainable = [name for name, p in named if p.requires_grad]
    return ParameterTable(
        rows=tuple(_rows(named, decays)),
        trainable=tuple(trainable),
        no_decay=tuple(name for name in trainable if not decays[name]),
        trainable_parameters=sum(p.numel() for _, p in named if p.requires_grad),
        frozen_parameters=sum(p.numel() for _, p in named if not p.requires_grad),
    )


def _rows(named: Iterable[tuple[str, nn.Parameter]], decays: dict[str, bool]) -> list[Row]:
    groups: dict[tuple[str, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        fate = parameter.requires_grad
        groups.setdefault((_group(name), fate, fate and decays[name]), []).append(parameter)
    rows = [Row(group, len(ps), sum(p.numel() for p in ps), fate, decay) for (group, fate, decay), ps in groups.items()]
    return _joined_blocks(rows)


def _group(name: str) -> str:
    short = re.sub(r"^encoders\.\w+\.", "", name)
    head, _, rest = short.partition(".")
    if head != "vit":
        return head
    part = rest.split(".")
    return f"vit.blocks.{part[1]}" if part[0] == "blocks" else f"vit.{part[0]}"


def _joined_blocks(rows: list[Row]) -> list[Row]:
    """Neighbouring blocks of the same fate as one row, `vit.blocks.0-3`."""
    joined: list[Row] = []
    for row in rows:
        place = next((i for i, before in enumerate(joined) if _follows(before, row)), None)
        if place is None:
            joined.append(row)
            continue
        before = joined[place]
        group = f"vit.blocks.{_numbers(before)[0]}-{_numbers(row)[-1]}"
        tensors, parameters = before.tensors + row.tensors, before.parameters + row.parameters
        joined[place] = Row(group, tensors, parameters, row.trains, row.decay)
    return joined


def _numbers(row: Row) -> list[int]:
    """The block numbers in a group's name: none, one, or first and last."""
    return [int(n) for n in re.findall(r"\d+", row.group)] if row.group.startswith("vit.blocks.") else []


def _follows(before: Row, row: Row) -> bool:
    same = (before.trains, before.decay) == (row.trains, row.decay)
    return same and bool(_numbers(before)) and bool(_numbers(row)) and _numbers(before)[-1] + 1 == _numbers(row)[0]


def summary(recipe: Recipe) -> list[str]:
    """The run in words: anchors, loss, batch, optimiser, schedule, precision."""
    o, s, d = recipe.optimizer, recipe.schedule, recipe.data
    warmup = f"warm-up {s.warmup_steps} steps" if s.warmup_steps else "no warm-up"
    length = f"{s.epochs} epochs" + (f", at most {s.max_steps} steps" if s.max_steps else "")
    micro = f", {recipe.micro_batch} at once in each process" if recipe.micro_batch else ""
    cached = "anchors computed once" if recipe.anchors.cache else "anchors computed at every step"
    tokens = token_lines(recipe) if recipe.tokens.on else []
    return [
        f"model      {recipe.model.modality} -> {anchor_name(recipe)}",
        f"loss       CLIP loss to {' + '.join(recipe.anchors.modalities)}, {cached}",
        *tokens,
        f"batch      {recipe.batch_size} items over all processes{micro}",
        f"optimiser  AdamW lr {o.lr:g}, betas {o.betas[0]:g} {o.betas[1]:g}, eps {o.eps:g}, weight decay {o.weight_decay:g}"
        + (f", gradient norm {o.clip_norm:g}" if o.clip_norm else ""),
        f"schedule   {s.kind}, {warmup}, {length}",
        f"precision  {recipe.precision}",
        f"data       {d.train or '(none yet: data.train=FILE)'}",
    ]


def token_lines(recipe: Recipe) -> list[str]:
    """The terms on tokens in words, and what is kept of pictures for them, in bytes."""
    options, patches = recipe.tokens, recipe.tokens.patches
    with torch.device("meta"):
        vit = build_encoder(encoder_spec(recipe, anchor_spec(recipe))).vit
    state, pool = 4 * vit.width, 2 * vit.width * min(POOL, options.pictures * vit.patches)
    words, kept = [], []
    if options.class_state.weight:
        layer = options.class_state.layer
        where = "the final norm" if layer is None else f"block {layer}"
        words.append(f"class state behind {where} x {options.class_state.weight:g}")
        kept.append(f"class states {state:,} bytes an item" if recipe.anchors.cache else "class states through the picture tower")
    if options.patches_weight:
        what = f"{patches.readers} readers of" if patches.kind == "readers" else "every one of"
        words.append(f"{what} the patch tokens behind block {patches.layer} x {patches.weight:g}")
    if options.per_token:
        kept.append("of patch tokens nothing: pictures through their tower at every step")
    if options.spread.weight:
        words.append(f"their spread in {options.spread.directions} directions x {options.spread.weight:g}")
    kept.append(f"a pool of patch tokens {pool:,} bytes once, from {options.pictures:,} pictures")
    held = f"; held for a step: patch tokens {4 * vit.patches * vit.width:,} bytes an item" if options.need_patches else ""
    return [f"tokens     {', '.join(words)}", f"cached     {'; '.join(kept)}{held}"]

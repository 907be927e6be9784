"""What the terms on tokens know of pictures, made once from training pictures and kept beside the anchors: channel statistics of
class state and patch tokens, frozen readers of the patch tokens, and a pool of patch tokens.

It is kept by the picture tower's weights, the preprocessing, the options, the seed and what the pictures hold, and is the same in
every process. What the terms compare with item by item - class states, patch tokens - is in `PictureTargets`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from vitlens.checkpoint import save_tensors
from vitlens.encoder import LensEncoder
from vitlens.errors import InputError, OptionError
from vitlens.model import ViTLens
from vitlens.processes import from_main, world
from vitlens.space import EmbeddingSpace
from vitlens.store.digests import DIGEST
from vitlens.store.engine import Engine
from vitlens.store.store import EmbeddingStore, default_folder
from vitlens.train.anchors import AnchorTable
from vitlens.train.examples import seed_of, seeded
from vitlens.train.gradcache import Named
from vitlens.train.recipe import TokenOptions
from vitlens.train.records import Reader
from vitlens.train.task import Report
from vitlens.train.token_terms import CLASS_STATE, PATCHES, PictureTower, TokenLook, TokenReaders, TokenStatistics, class_state
from vitlens.vit import FrozenViT, ViT

POOL = 1 << 16
"""Patch tokens kept for the spread."""
READER_BATCH = 128
READER_RATE = 1e-3
UNSEEN = 0.3
"""Share of the patch tokens that a reader is not shown while it learns, so that it does not lean on few of them."""
SMALLEST = 1e-4
"""Deviation below which a channel counts as constant: it is divided by this."""


@dataclass(frozen=True)
class PictureTokens:
    """What is known of pictures' tokens; `pool` [n, D] float16, `readers` frozen."""

    key: str
    statistics: TokenStatistics
    pool: Tensor
    readers: TokenReaders | None


@dataclass(frozen=True)
class _Seen:
    """Of some pictures, float32: embeddings [k, E], normalised; class states [k, D]; patch tokens [k, m, D] in float16."""

    embeddings: Tensor
    states: Tensor
    patches: Tensor


def check_tokens(options: TokenOptions, vit: ViT, model: ViTLens, anchors: Sequence[str], *, augment: bool) -> None:
    """Refuse terms that nothing can be compared for.

    Raises:
        OptionError: no pictures among the anchors; a ViT of other tokens than theirs; a class state of a ViT without class token;
            tokens one by one of augmented items.
    """
    if "image" not in anchors:
        raise OptionError(
            f"tokens: every term compares with pictures' tokens, and anchors.modalities is [{', '.join(anchors)}]: add image "
            "(and a column of pictures), or leave tokens out; without pictures nothing is left of it"
        )
    pictures = cast(LensEncoder, model.tower("image")).vit
    if vit.width != pictures.width:
        raise OptionError(f"tokens: the lens's ViT has tokens of width {vit.width}, the anchors' picture tower {pictures.width}")
    depth = min(len(vit.blocks), len(pictures.blocks))
    layers = {"class_state": options.class_state.block, "patches": options.patches.layer}
    for name, layer in layers.items():
        if -layer > depth:
            raise OptionError(f"tokens.{name}.layer={layer}: there are {depth} blocks, so -1 to -{depth}")
    if options.class_state.weight and getattr(pictures, "class_token", None) is None:
        raise OptionError("tokens.class_state: this ViT has no class token; set its weight to 0 and use tokens.patches")
    if options.per_token and augment:
        raise OptionError(
            "tokens.patches.kind=per_token compares with the picture patch by patch, and augmentation moves the lens's view "
            "alone: set data.augment=false, or choose readers"
        )
    if options.spread.weight and options.spread.directions > vit.width:
        raise OptionError(f"tokens.spread.directions={options.spread.directions}: tokens of width {vit.width} have no more")


def picture_tokens(
    engine: Engine,
    reader: Reader,
    usable: np.ndarray,
    options: TokenOptions,
    *,
    seed: int,
    folder: str | os.PathLike[str] | None,
    report: Report,
) -> PictureTokens:
    """Make them of `options.pictures` of the rows that are `usable`, or take what `folder` holds; all processes call it.

    Raises:
        OptionError: fewer than two pictures.
    """
    encoder = cast(LensEncoder, engine.model.tower("image"))
    vit = cast(FrozenViT, encoder.vit)
    rows = _chosen(usable, options.pictures, seed)
    home = Path(folder or default_folder())
    key = _key(engine, reader, rows, options, seed, home)
    path = home / "tokens" / f"{key}.safetensors"
    tensors: dict[str, Tensor] = {}
    if world()[0] == 0:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(path, _made(engine, reader, rows, options, seed, report))
        tensors = load_file(path)
    return _unpacked(key, from_main(tensors), vit, options)


def _chosen(usable: np.ndarray, count: int, seed: int) -> np.ndarray:
    if len(usable) < 2:
        raise OptionError(f"tokens: {len(usable)} usable pictures: their tokens' statistics need two at least")
    chance = np.random.Generator(np.random.PCG64(seed_of(seed, "token pictures")))
    return np.sort(chance.permutation(usable)[:count])


def _key(engine: Engine, reader: Reader, rows: np.ndarray, options: TokenOptions, seed: int, folder: Path) -> str:
    """A hash of all that decides the result."""
    from torch.utils.data import Subset

    items = cast(Any, Subset(cast(Any, reader), rows.tolist()))
    listed = EmbeddingStore(folder).listed(items, reader.modality, source=lambda place: reader.source(int(rows[place])))
    made = {"class_layer": options.class_state.layer, "patches": {**asdict(options.patches), "weight": None}, "seed": seed}
    about = {**engine.about("image"), **made}
    text = json.dumps(about, sort_keys=True, default=str).encode() + listed.digests.tobytes()
    return hashlib.blake2b(text, digest_size=DIGEST).hexdigest()


def _made(
    engine: Engine, reader: Reader, rows: np.ndarray, options: TokenOptions, seed: int, report: Report
) -> dict[str, Tensor]:
    """All of it as tensors by name."""
    encoder = cast(LensEncoder, engine.model.tower("image"))
    vit, device = cast(FrozenViT, encoder.vit), engine.model.device
    seen = _look(engine, encoder, reader, rows, options, report)
    flat = seen.patches.flatten(0, 1)
    mean, std = flat.float().mean(dim=0), flat.float().std(dim=0).clamp_min(SMALLEST)
    chance = torch.Generator().manual_seed(seed_of(seed, "token pool"))
    found = {"class_std": seen.states.std(dim=0).clamp_min(SMALLEST), "patch_mean": mean, "patch_std": std}
    found["pool"] = flat[torch.randperm(len(flat), generator=chance)[:POOL]].clone()
    if options.patches.kind == "readers":
        with seeded(seed_of(seed, "token readers")):
            readers = _new_readers(vit, options)
        readers.mean.copy_(mean)
        readers.std.copy_(std)
        _fit(readers.to(device), seen, options.patches.reader_steps, engine.model.logit_scale, seed, report)
        found |= {f"readers.{name}": value.cpu() for name, value in readers.state_dict().items()}
    return found


@torch.no_grad()
def _look(engine: Engine, encoder: LensEncoder, reader: Reader, rows: np.ndarray, options: TokenOptions, report: Report) -> _Seen:
    device, vit = engine.model.device, cast(FrozenViT, encoder.vit)
    wanted = {options.class_state.block, options.patches.layer}
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(rows), engine.batch_size):
        batch = _readable(reader, rows[start : start + engine.batch_size])
        if not batch:
            continue
        embedding, hidden = encoder.look_through(torch.stack(batch).to(device), wanted)
        states = class_state(vit, hidden[options.class_state.block][:, 0], options.class_state.layer)
        patches = hidden[options.patches.layer][:, 0, vit.prefix :]
        parts.append((F.normalize(embedding.float(), dim=-1).cpu(), states.cpu(), patches.half().cpu()))
        report("picture tokens", min(start + engine.batch_size, len(rows)), len(rows))
    if sum(len(embedding) for embedding, _, _ in parts) < 2:
        raise OptionError(f"tokens: of {len(rows)} training pictures fewer than two can be read")
    return _Seen(*(torch.cat(kind) for kind in zip(*parts, strict=True)))


def _readable(reader: Reader, rows: np.ndarray) -> list[Tensor]:
    """Pictures of rows, without those that cannot be read: where there is no cache nobody has tried yet."""
    found = []
    for row in rows.tolist():
        with suppress(InputError):
            found.append(reader.modality.transform(reader.load(row)))
    return found


def _new_readers(vit: FrozenViT, options: TokenOptions) -> TokenReaders:
    return TokenReaders(vit.width, vit.embed_dim, heads=vit.width // vit.head_width, count=options.patches.readers)


def _fit(readers: TokenReaders, seen: _Seen, steps: int, scale: float, seed: int, report: Report) -> None:
    """Readers learn which picture the patch tokens are of: CLIP's loss against the pictures' own embeddings, in one process."""
    device = readers.mean.device
    optimizer = torch.optim.AdamW(readers.parameters(), lr=READER_RATE, weight_decay=0.05)
    chance = torch.Generator().manual_seed(seed_of(seed, "token fitting"))
    count = min(READER_BATCH, len(seen.patches))
    for step in range(steps):
        rows = torch.randperm(len(seen.patches), generator=chance)[:count]
        patches = seen.patches[rows].to(device)
        unseen = torch.rand(patches.shape[:2], generator=chance) < UNSEEN
        unseen[:, 0] &= ~unseen.all(dim=1)  # one token at least
        read = F.normalize(readers(patches, unseen.to(device)), dim=-1)
        logits = scale * torch.einsum("bre,ce->rbc", read, seen.embeddings[rows].to(device))
        own = torch.arange(count, device=device).expand(len(logits), -1)
        optimizer.zero_grad()
        (F.cross_entropy(logits.transpose(1, 2), own) + F.cross_entropy(logits, own)).backward()
        optimizer.step()
        report("token readers", step + 1, steps)


def _unpacked(key: str, tensors: dict[str, Tensor], vit: FrozenViT, options: TokenOptions) -> PictureTokens:
    readers = None
    if options.patches.kind == "readers" and options.patches.weight:
        readers = _new_readers(vit, options)
        readers.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("readers.")})
        readers.eval().requires_grad_(False)
    statistics = TokenStatistics(*(tensors[name] for name in ("class_std", "patch_mean", "patch_std")))
    return PictureTokens(key, statistics, tensors["pool"], readers)


class PictureTargets:
    """Class states and patch tokens of the items' own pictures.

    Class states are kept on disk as the anchors are; patch tokens, and without a cache class states, come through the picture
    tower at every step.
    """

    def __init__(self, model: ViTLens, anchors: AnchorTable, options: TokenOptions, *, cache: bool) -> None:
        encoder = cast(LensEncoder, model.tower("image"))
        look = TokenLook(options)
        self.states = PictureTower(encoder, look, CLASS_STATE) if options.class_state.weight else None
        self.patches = PictureTower(encoder, look, PATCHES) if options.per_token else None
        self.kept: AnchorTable | None = None
        if self.states is not None and cache:
            layer = options.class_state.layer
            behind = "the final norm" if layer is None else f"block {layer}"
            space = EmbeddingSpace(f"{model.space.name}, class state behind {behind}", encoder.vit.width)
            image = tuple(spec for spec in model.spec.encoders if spec.modality == "image")
            spec = replace(model.spec, space=space, encoders=image, text=None)
            states = ViTLens(spec=spec, encoders=cast(Any, {"image": self.states}), text=None)
            engine = replace(anchors.engine, model=states, hashes={})
            self.kept = AnchorTable(engine, anchors.table, ["image"], readers=anchors.readers, captions=None)

    @property
    def from_pixels(self) -> bool:
        """Whether the pictures themselves are needed at every step."""
        return self.patches is not None or (self.states is not None and self.kept is None)

    def fill(self, folder: str | os.PathLike[str] | None, report: Report) -> None:
        """Compute the class states that are not on disk yet."""
        if self.kept is not None:
            self.kept.fill(folder, report)

    @torch.no_grad()
    def of(self, rows: np.ndarray, pixels: Tensor | None, device: torch.device) -> Named:
        """The targets of rows [b], whose pictures are `pixels` [b, 3, h, w] where they are needed."""
        found: Named = {}
        if self.kept is not None:
            found[CLASS_STATE] = self.kept.kept("image", rows).to(device, non_blocking=True)
        elif self.states is not None:
            found[CLASS_STATE] = self.states(cast(Tensor, pixels).to(device))
        if self.patches is not None:
            found[PATCHES] = self.patches(cast(Tensor, pixels).to(device))
        return found

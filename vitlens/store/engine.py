"""The engine: a list of items and their digests in, parts of vectors and errors out. It needs a model and no store.

Parts hold whole batches only, so that whoever goes on after a stop forms the same batches, and gets the same bytes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vitlens.errors import InputError
from vitlens.precision import AUTO, PRECISIONS, torch_dtype
from vitlens.store.digests import model_hash
from vitlens.store.items import source_name
from vitlens.store.parts import Part

if TYPE_CHECKING:
    from vitlens.batches import Workers
    from vitlens.model import Encoded, ViTLens

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


class Items(Protocol):
    """Items by position, as `Modality.load` takes them; a list, or something that opens them when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def _warn(modality: str, name: str, remark: str) -> None:
    warnings.warn(f"{name}: {remark}", stacklevel=3)


@dataclass(frozen=True)
class Engine:
    """How items are embedded: a model, its batches and precision, and how often what is done is handed over."""

    model: ViTLens
    batch_size: int = 32
    num_workers: Workers = 0
    precision: str = "fp32"
    """fp32, bf16, fp16, or auto: by a probe of each tower."""
    save_every: int = 1000
    """Items of a part, rounded up to whole batches."""
    save_seconds: float = 60.0
    """A part is handed over after this time even if it is small."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Of the weights of each tower that was asked for, by the name of its modality."""
    chosen: dict[str, str] = field(default_factory=dict)
    """Of precision auto: what each modality is computed in, once it is known."""
    remark: Callable[[str, str, str], None] = _warn
    """Is told what a reader has to say of an item that it read: (modality, name of the item, text)."""

    def about(self, modality: str) -> dict[str, Any]:
        """What the embeddings of a modality are made by: what a store keeps them by."""
        reading = self.model.modality(modality)
        shares = reading.shares
        tower = shares if shares and modality not in self.model.encoders else modality
        if tower not in self.hashes:
            self.hashes[tower] = model_hash(self.model.tower(modality))
        return {
            "weights": self.hashes[tower],
            "space": self.model.space.name,
            "dim": self.model.space.dim,
            "modality": modality,
            "options": reading.options(),
            "steps": reading.steps(),
            "precision": PRECISIONS[self.arithmetic(modality)],
        }

    def arithmetic(self, modality: str) -> str:
        """The precision that a modality is computed in; of auto, what was chosen before or by the model's probe."""
        if self.precision != AUTO:
            return self.precision
        if modality not in self.chosen:
            self.chosen[modality] = self.model.probe(modality).precision
        return self.chosen[modality]

    def __call__(
        self,
        modality: str,
        items: Items,
        digests: np.ndarray,
        keep: Callable[[Part], None],
        *,
        read_options: Mapping[str, Any] | None = None,
        stop_at_error: bool = False,
        unchanged: Callable[[int], bool] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> dict[int, InputError]:
        """Embed items [n] with digests uint8 [n, 16], handing parts to `keep`; returns the errors by position.

        `unchanged(index)` says after a batch whether an item still is what its digest says. However this ends - Ctrl-C,
        an exception, with `stop_at_error` the first item that cannot be read - the whole batches before it are kept.
        """
        stream = self.model.stream(
            modality,
            items,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            dtype=torch_dtype(self.arithmetic(modality)),
            normalize=False,
            read_options=read_options,
        )
        errors: dict[int, InputError] = {}
        ready: list[Encoded] = []  # whole batches
        batch: list[Encoded] = []
        saved = time.monotonic()
        if progress:
            progress(0)
        try:
            for encoded in stream:
                batch.append(encoded)
                for remark in encoded.remarks:
                    self.remark(modality, source_name(items[encoded.index]), remark)
                done = encoded.index + 1
                if encoded.error is not None:
                    errors[encoded.index] = encoded.error
                    if stop_at_error:
                        break
                if done % self.batch_size and done < len(items):
                    continue
                changed = [one.index for one in batch if unchanged and not unchanged(one.index)]
                ready += [one for one in batch if one.index not in changed]
                batch = []
                for index in changed:
                    error = InputError(source_name(items[index]), "it changed while it was read", "a file at rest")
                    errors.setdefault(index, error)
                if len(ready) >= self.save_every or time.monotonic() - saved >= self.save_seconds:
                    keep(_part(ready, digests, self.model.space.dim))
                    ready, saved = [], time.monotonic()
                if progress:
                    progress(done)
        finally:
            if ready:
                keep(_part(ready, digests, self.model.space.dim))
        return errors


def _part(ready: Sequence[Encoded], digests: np.ndarray, dim: int) -> Part:
    kept = [(one.index, one.embedding.numpy()) for one in ready if one.embedding is not None]
    vectors = np.stack([vector for _, vector in kept]) if kept else np.empty((0, dim), np.float32)
    bad = {digests[one.index].tobytes(): one.error for one in ready if one.error is not None}
    return Part(digests[[index for index, _ in kept]], vectors, bad)

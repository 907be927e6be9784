"""Those who embed lists - `vitlens embed`, a training's anchors, an evaluation - each as one function of files and a folder."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from tests.benchmarks.evaluation_world import Shapes
from tests.train.tiny import item, tiny_clip
from vitlens.benchmarks.evaluation.tasks import Work
from vitlens.model import ViTLens
from vitlens.store.engine import Engine, Progress
from vitlens.store.items import Inputs, Item
from vitlens.store.job import Job, Settings
from vitlens.store.store import EmbeddingStore
from vitlens.train.anchors import AnchorTable
from vitlens.train.records import Reader, open_records

BATCH = 2


@dataclass(frozen=True)
class Outcome:
    """The normalised embedding of each file that has one, what the others are said to be, and the bytes of the output."""

    vectors: dict[str, np.ndarray]
    failed: dict[str, str]
    output: bytes
    computed: int
    """Embeddings that this run did not find on disk."""


User = Callable[[Sequence[Path], Path, ViTLens, Progress], Outcome]


def embed(files: Sequence[Path], folder: Path, model: ViTLens, progress: Progress) -> Outcome:
    """`vitlens embed`."""
    out = folder / "out.npz"
    out.unlink(missing_ok=True)
    items = tuple(Item(row, path.name, "image", path) for row, path in enumerate(files))
    result = Job(Inputs(items), out, "tiny", Settings(batch_size=BATCH, save_every=BATCH)).run(lambda _: model, progress=progress)
    stored = np.load(out)
    errors = out.with_name("out.npz.errors.csv")
    rows = list(csv.reader(errors.open())) if errors.exists() else []
    output = out.read_bytes() + (errors.read_bytes() if rows else b"")
    vectors = dict(zip(stored["image_items"].tolist(), stored["image"], strict=True))
    return Outcome(vectors, {Path(row[0]).name: row[2] for row in rows[1:]}, output, len(vectors) - result.resumed)


def anchors(files: Sequence[Path], folder: Path, model: ViTLens, progress: Progress) -> Outcome:
    """The frozen anchors of a training."""
    table = open_records([{"image": path} for path in files])
    readers = {"image": Reader(table, model.modality("image"))}
    made = AnchorTable(Engine(model, BATCH, save_every=BATCH), table, ["image"], readers=readers, captions=None)
    computed = made.fill(folder / "cache", progress)
    rows = made.usable()
    vectors = made.lookup(rows, np.zeros_like(rows))["image"].numpy()
    failed = {files[row].name: why for row, why in made.unusable.items()}
    return Outcome({files[row].name: v for row, v in zip(rows, vectors, strict=True)}, failed, vectors.tobytes(), computed)


def evaluation(files: Sequence[Path], folder: Path, model: ViTLens, progress: Progress) -> Outcome:
    """What `vitlens eval` embeds of a dataset."""
    items = [Shapes().item(path, "disc") for path in files]
    store = EmbeddingStore(folder / "cache")
    work = Work(Shapes(), "test", items, store, Engine(model, BATCH, save_every=BATCH), on_error="skip", progress=progress)
    found, kept = work.embed("image", items)
    vectors = torch.nn.functional.normalize(found, dim=-1).numpy()
    failed = {Path(one.file).name: one.reason for one in work.skipped}
    names = [f"{one.id}.png" for one in kept]
    return Outcome(dict(zip(names, vectors, strict=True)), failed, found.numpy().tobytes(), store.computed)


USERS: dict[str, User] = {"embed": embed, "anchors": anchors, "evaluation": evaluation}
COUNT, BROKEN = 13, 4


def pictures(folder: Path) -> list[Path]:
    """Thirteen pictures; one of the first few is broken, one is there twice."""
    folder.mkdir(parents=True)
    files = [folder / f"{index:03}.png" for index in range(COUNT)]
    for index, file in enumerate(files):
        PIL.Image.fromarray(item(index)["image"]).save(file)
    files[BROKEN].write_bytes(b"no picture")
    shutil.copy(files[1], files[7])
    return files


def run(user: User, files: Sequence[Path], folder: Path, progress: Progress = lambda *_: None) -> Outcome:
    """One run of a user, with a model of its own."""
    folder.mkdir(exist_ok=True)
    return user(files, folder, tiny_clip(), progress)

"""`vitlens demo`: every sensor through one tiny model, from real files, without any download."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitlens.errors import OptionError
from vitlens.pictures import overview

if TYPE_CHECKING:
    from vitlens.modality import Modality, Sample

MODEL = "vitlens-tiny-random"
REMARK = (
    "The weights of this model are random, made from a formula: the numbers say that every sensor runs through the same "
    "machinery, and mean nothing else."
)


@dataclass(frozen=True)
class Demo:
    """What the demo made: a file per sensor, a manifest that names them, their cosines [n, n], and the picture."""

    files: dict[str, Path]
    manifest: Path
    cosines: np.ndarray
    picture: Path


def run_demo(folder: Path) -> Demo:
    """Write every modality's example to `folder`, embed the files, and draw what came of it.

    Raises:
        OptionError: `folder` is a file.
    """
    import vitlens

    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file; name a folder for the demo")
    folder.mkdir(parents=True, exist_ok=True)
    model = vitlens.load(MODEL)
    drawn: list[tuple[Modality, Sample]] = []
    files: dict[str, Path] = {}
    for seed, name in enumerate(model.modalities):
        modality = model.modality(name)
        files[name] = modality.write(modality.example(seed), folder, name)
        drawn.append((modality, modality.load(files[name])))
    embeddings = model.encode({name: [path] for name, path in files.items()})
    vectors = np.concatenate([embeddings[name].numpy() for name in files])
    cosines = vectors @ vectors.T
    picture = overview(drawn, cosines, list(files), folder / "demo.png", remark=REMARK)
    manifest = folder / "items.csv"
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(files)
        writer.writerow(sample.data if m.tower == "text" else files[m.name].name for m, sample in drawn)
    return Demo(files, manifest, cosines, picture)


def next_commands(made: Demo) -> list[str]:
    """Three commands to go on with."""
    folder = made.picture.parent
    first = next((made.files[name] for name in ("audio", "image") if name in made.files), next(iter(made.files.values())))
    return [
        f"vitlens info {first} --model {MODEL} -o {folder / 'info.png'}",
        f"vitlens embed --manifest {made.manifest} --model {MODEL} -o {folder / 'embeddings.parquet'}",
        "vitlens models    # models that know something, and where their weights come from",
    ]

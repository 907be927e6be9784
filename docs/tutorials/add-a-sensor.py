# %% [markdown]
# # Add a sensor
#
# A robot's laser scanner measures distances along a few lines. No vision model knows such a thing. One class makes it a
# sensor of vitlens; a short training gives it a lens.

# %%
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vitlens import Modality, Sample, register_modality
from vitlens.embed import PatchEmbed
from vitlens.lens_config import IdentityConfig
from vitlens.sources import Source


@register_modality
@dataclass(frozen=True)
class Laser(Modality):
    """Distances in metres [lines, steps], a line for each laser."""

    size: int = 64

    name = "laser"
    unit = "metres, float32 [lines, steps]"
    accepts = "a .npy file or an array of metres [lines, steps]"
    extensions = ("npy",)
    default_lens = IdentityConfig()

    def read(self, source, *, format=None):
        given = Source(source, self.accepts)
        if given.is_array:
            values = given.array()
        else:
            with given.local_file(extensions=self.extensions, format=format) as path:
                values = given.npy(path)
        values = given.numeric(values)
        if values.ndim != 2:
            raise given.refuse(f"{values.ndim} dimensions")
        return Sample(values.astype(np.float32), given.name)

    def transform(self, sample, *, train=False):
        near = 1 / torch.from_numpy(np.asarray(sample.data)).clamp(min=0.1)
        return F.interpolate(((near - 0.5) / 0.2)[None, None], size=(self.size, self.size), mode="bilinear")[0]

    def build_embed(self, width, vit):
        return PatchEmbed(channels=1, width=width, patch=vit.patch_size, positions=(self.size // vit.patch_size) ** 2)

    def example(self, seed=0):
        return Sample((1 + np.random.default_rng(seed).random((16, 64))).astype(np.float32), "example")

    def write(self, sample, folder, stem):
        path = Path(folder) / f"{stem}.npy"
        np.save(path, sample.data)
        return path

    def steps(self):
        return ["nearness 1 / metres, normalised", f"resize to {self.size} x {self.size}"]


# %% [markdown]
# What it reads, and what it refuses, it refuses by name:

# %%
laser = Laser()
path = laser.write(laser.example(), ".", "scan")
print(laser.transform(laser.load(path)).shape)
try:
    laser.load(np.zeros(5, np.float32))
except Exception as error:
    print(error)

# %% [markdown]
# Data: the Toybox has no laser, but depth cameras; sixteen lines of a depth map are what such a scanner would see.

# %%
from vitlens.benchmarks.toybox import make_toybox

make_toybox("toybox", objects={"train": 168, "validation": 56}, sensors=["image", "depth"], progress=False)


def measured(split):
    """Rows with a laser scan, a picture, a caption and a label."""
    from PIL import Image

    for row in csv.DictReader(Path(f"toybox/{split}.csv").open()):
        metres = np.asarray(Image.open(f"toybox/{row['depth']}"), np.float32) / 1000
        yield {"laser": metres[2::4], "image": f"toybox/{row['image']}", "text": row["text"], "label": row["shape"]}


train, new = list(measured("train")), list(measured("validation"))
train[0]["laser"].shape, train[0]["text"].split("|")[0]

# %% [markdown]
# The lens is trained against the shipped model's towers for pictures and words:

# %%
from vitlens.train import LensTask, Trainer, load_recipe

Path("laser.yaml").write_text("""
name: laser
model: {modality: laser, trains: {first_blocks: 2}}
anchors: {model: vitlens-toybox}
evaluation: {label: label}
batch_size: 56
optimizer: {lr: 1.0e-3}
schedule: {warmup_steps: 4, epochs: 3}
""")
result = Trainer(LensTask(load_recipe("laser.yaml"), train=train, evaluation=new), progress=False).run()
print(f"{100 * result.score.top1:.0f} % of new objects named right by sixteen lines; a guess gets 3 %")

# %% [markdown]
# From here on it is a sensor like any other: `result.model.encode({"laser": [...]})`, `save_pretrained`, the index, the
# service. With an entry point in your package it is in `vitlens modalities`, `vitlens embed` and `vitlens doctor`:
# [Adding a modality](../adding-a-modality.md).

# %%
scans = result.model.encode({"laser": [row["laser"] for row in new[:8]]})["laser"]
scans.shape, result.model.space.name

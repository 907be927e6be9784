# %% [markdown]
# # Train a lens on your own data
#
# A manifest with a column for your sensor and one for pictures (or captions) is all that training needs. Here the
# sensor is a depth camera and the data are the Toybox's; the anchors are the shipped model's towers for pictures and
# words, which stay frozen.

# %%
import csv
from pathlib import Path

from IPython.display import Image

import vitlens
from vitlens.benchmarks.toybox import make_toybox
from vitlens.train import LensTask, Trainer, load_recipe

make_toybox("toybox", objects={"train": 224, "validation": 56}, sensors=["image", "depth"], progress=False)
print(Path("toybox/train.csv").read_text().splitlines()[0])

# %% [markdown]
# The recipe is a YAML file. Every key that is left out has a default; an unknown one is an error that names the known
# ones. `patches: image` lets a map begin as the ViT's own patches see a grey picture; a sensor that is no map leaves it
# out.

# %%
Path("lens.yaml").write_text("""
name: my-depth
model:
  modality: depth
  options: {size: 64, mean: 0.0499, std: 0.0264}
  lens: {kind: identity}
  trains: {first_blocks: 2}
  patches: image
anchors: {model: vitlens-toybox}
data: {train: toybox/train.csv}
evaluation: {data: toybox/validation.csv, label: shape}
batch_size: 56
optimizer: {lr: 1.0e-3}
schedule: {warmup_steps: 4, epochs: 3}
""")
recipe = load_recipe("lens.yaml")

# %% [markdown]
# On the command line: `vitlens train lens.yaml --dry-run` says what trains, `vitlens train lens.yaml` does it, and goes
# on where it was stopped.

# %%
result = Trainer(LensTask(recipe), progress=False).run()
print(f"{result.steps} steps; {100 * result.score.top1:.0f} % of {result.score.items} new objects named right; a guess gets 3 %")

# %% [markdown]
# The shipped lens saw a hundred times as much. This one saw each of a few objects three times.
# The run's folder holds the log, the curve, and the model:

# %%
Image(str(result.folder / "curve.png"))

# %%
mine = vitlens.load(result.folder / "model")
row = next(csv.DictReader(Path("toybox/validation.csv").open()))
item = {"source": f"toybox/{row['depth']}", "scale": 0.001}
mine.encode({"depth": [item]})["depth"].shape, mine.space.name

# %% [markdown]
# Its embeddings live in the space of the anchors: whatever was embedded there can be found by them. Every field of a
# recipe, large batches on small machines, several processes: [Training](../training.md).

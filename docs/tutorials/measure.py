# %% [markdown]
# # Measure on a data set of yours
#
# A data set is a card (what it is, where it comes from, its licence) and a class that lists its items. Then it is
# measured like the field's: zero-shot, by a linear probe, with a report.

# %%
import csv
from pathlib import Path

from IPython.display import Image

import vitlens
from vitlens.benchmarks.datasets import Dataset, DatasetCard, DatasetItem, Problem, register_dataset
from vitlens.benchmarks.evaluation import Settings, evaluate, read_results, write_report
from vitlens.benchmarks.toybox import make_toybox

make_toybox("knocks", objects={"train": 64, "test": 48}, sensors=["audio"], progress=False)


@register_dataset
class Knocks(Dataset):
    """Things that are struck, by what they are made of."""

    card = DatasetCard(
        name="knocks",
        title="Knocks: what is it made of?",
        task="classification",
        modality="audio",
        splits={"train": 64, "test": 48},
        default_split="test",
        licence="mine",
        source="recorded in the Toybox",
        layout="knocks/\n  train.csv, test.csv     columns audio, material",
    )

    def check(self, root):
        return [Problem(name, "a manifest") for name in ("train.csv", "test.csv") if not (root / name).is_file()]

    def items(self, root, split):
        rows = csv.DictReader((root / f"{self.checked(split)}.csv").open())
        return [DatasetItem(row["id"], {"audio": root / row["audio"]}, (row["material"],)) for row in rows]

    def classes(self, split):
        return ("ceramic", "fabric", "glass", "metal", "plastic", "rubber", "stone", "wood")

    def prompts(self, split):
        return ("a {} thing", "the sound of {}")


# %% [markdown]
# Zero-shot: the model is told the eight names and nothing else.

# %%
model = vitlens.load("vitlens-toybox")
result = evaluate(model, "knocks", "knocks", Settings(cache=Path("cache")))
print({name: round(value, 1) for name, value in result.metrics.items()}, "chance 12.5")

# %% [markdown]
# A linear probe on the same embeddings, which are kept and not computed again:

# %%
probe = evaluate(model, "knocks", "knocks", Settings(task="linear-probe", train_splits=("train",), cache=Path("cache")))
print({name: round(value, 1) for name, value in probe.metrics.items()})

# %% [markdown]
# Every result says with what it was measured: model, weights, prompts, versions. A folder of results becomes a report.

# %%
folder = Path("report")
for one in (result, probe):
    one.write(folder)
write_report(folder, read_results(folder))
sorted(path.name for path in folder.iterdir())

# %%
Image(str(next(folder.rglob("confusion.png"))))

# %% [markdown]
# The field's data sets, their cards and what was published about them: [Benchmarks](../benchmarks.md). `vitlens eval`
# is the same on the command line, for the data sets that ship.

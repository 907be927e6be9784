# %% [markdown]
# # Your first files of every sensor
#
# Objects of the Toybox, each measured by every sensor and written as the files that such sensors write; the shipped
# model reads them. Nothing is downloaded.

# %%
import warnings
from pathlib import Path

from IPython.display import Image

import vitlens
from vitlens.benchmarks.toybox import make_toybox
from vitlens.display.pictures import heatmap, info_picture

make_toybox("toybox", objects={"test": 4}, progress=False)
sorted(str(path) for path in Path("toybox").rglob("test-000000*"))

# %% [markdown]
# A model reads a file by its sensor's rules. `vitlens info FILE` shows the same: what the file is, and what the model
# gets of it.

# %%
model = vitlens.load("vitlens-toybox")
depth = model.modality("depth")
sample = depth.load("toybox/test/depth/test-000000.png", scale=0.001, focal_length=80.0, baseline=0.075)
info_picture(depth, sample, depth.transform(sample), Path("info.png"))
Image("info.png")

# %%
for step in depth.steps():
    print("-", step)

# %% [markdown]
# What a file does not say must be told. Millimetres or metres? A guess would be wrong without a word, so the reader
# asks.

# %%
try:
    model.encode({"depth": ["toybox/test/depth/test-000000.png"]})
except vitlens.VitlensError as error:
    print(error)

# %% [markdown]
# `encode` takes a list of items for each sensor and gives their embeddings, all in one space. What has to be told
# stands beside the file: hundredths of a kelvin, 20 frames a second.

# %%
numbers = range(4)
files = {
    "image": [f"toybox/test/image/test-00000{i}.png" for i in numbers],
    "point_cloud": [f"toybox/test/point_cloud/test-00000{i}.ply" for i in numbers],
    "audio": [f"toybox/test/audio/test-00000{i}.wav" for i in numbers],
    "eeg": [f"toybox/test/eeg/test-00000{i}-epo.fif" for i in numbers],
    "thermal": [{"source": f"toybox/test/thermal/test-00000{i}.tiff", "scale": 0.01} for i in numbers],
    "imu": [f"toybox/test/imu/test-00000{i}.csv" for i in numbers],
    "pressure": [{"source": f"toybox/test/pressure/test-00000{i}.npy", "rate": 20.0} for i in numbers],
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what mne says of the names of files
    out = model.encode(files)
{name: tuple(rows.shape) for name, rows in out.items()}

# %% [markdown]
# Which scan is which picture? Cosines say it, sensor against sensor:

# %%
cosines = model.similarity(out["point_cloud"], out["image"])
heatmap(cosines.numpy(), [f"scan {i}" for i in numbers], [f"picture {i}" for i in numbers], Path("cosines.png"))
Image("cosines.png")

# %% [markdown]
# And what is it, in words of your own? (`vitlens classify` on the command line.)

# %%
shapes = ["chair", "hammer", "ladder", "mug", "ring", "star"]
for name in ("image", "point_cloud"):
    found = model.classify(name, files[name], shapes).top(1)
    print(name, [labels[0] for labels in found])

# %% [markdown]
# Next: [search a folder by a sound](search-by-sound.md); every sensor's files and units are in [Sensors and
# units](../sensors.md).

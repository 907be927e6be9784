# %% [markdown]
# # Plug a lens into a language model
#
# A language model that looks through a ViT understands every sensor that has a lens for this ViT; nothing of it is
# trained. The package ships a tiny InstructBLIP, trained on pictures alone, to show it.

# %%
import csv
from pathlib import Path

import vitlens
from vitlens.benchmarks.toybox import make_toybox
from vitlens.benchmarks.toybox.demo.describe import talking_host

make_toybox("toybox", objects={"test": 6}, sensors=["image", "point_cloud", "audio"], progress=False)
rows = list(csv.DictReader(Path("toybox/test.csv").open()))
model = vitlens.load("vitlens-toybox")
host = talking_host(model)
sorted(host.lenses)

# %% [markdown]
# It was trained on these questions about pictures:

# %%
for row in rows[:3]:
    print(host.generate("what is this?", {"image": f"toybox/{row['image']}"}), "it is:", row["material"], row["shape"])

# %% [markdown]
# Now it is handed scans and sounds. It never saw one of either.

# %%
for row in rows:
    scan = host.generate("what is this?", {"point_cloud": f"toybox/{row['point_cloud']}"})
    sound = host.generate("what is it made of?", {"audio": f"toybox/{row['audio']}"})
    print(f"{row['material']} {row['shape']}: scan {scan}, sound {sound}")

# %% [markdown]
# Why that works: the lens's tokens enter the ViT in the place of a picture's patches. Whether it is the same ViT is
# looked at before anything runs, weight by weight; another one is refused by name.

# %%
import torch

from vitlens.adapters.splice import HostTower, LensStream

with torch.no_grad():
    next(iter(host.model.vision_model.encoder.layers[0].parameters())).mul_(1.5)
try:
    HostTower(lambda: host.model.vision_model, name="another host").check(LensStream.from_model(model, "point_cloud"))
except vitlens.VitlensError as error:
    print(error)

# %% [markdown]
# The same for released hosts: `vitlens chat -m Salesforce/instructblip-vicuna-7b --lens
# point_cloud=vitlens-evag-point-cloud --point-cloud a.ply "What is this?"`. How often the tiny one is right, in tables:
# [The Toybox](../toybox.md); hosts: [Sensors in language models](../adapters.md).

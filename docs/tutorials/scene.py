# %% [markdown]
# # Find things in a scene
#
# A walk through a room with a depth camera becomes a map that any sense can ask. The room holds twelve objects of the
# Toybox; the frames are written as any recording is.

# %%
from pathlib import Path

from IPython.display import Image

import vitlens
from vitlens.benchmarks.scene.room import ToyRoom, write_room
from vitlens.benchmarks.toybox import as_items, observe
from vitlens.scene.build import Settings, build
from vitlens.scene.check import check
from vitlens.scene.layouts import open_recording
from vitlens.scene.page import Asked, write_page
from vitlens.scene.search import find
from vitlens.scene.view import draw
from vitlens.scene.windows import Cutting

room = ToyRoom(0)
frames = list(write_room(room, Path("room"), 6))
[f"{one.thing.material} {one.thing.shape}" for one in room.placed]

# %% [markdown]
# Do the frames fit each other? Wrong scales and inverted poses are found here, before anything is computed (`vitlens
# scene check`).

# %%
report = check(open_recording(Path("room")))
print(report.faults or "they do")

# %% [markdown]
# Building: fuse the surface, cut windows out of the frames, embed them, give the embeddings to voxels (`vitlens scene
# build`). Few frames and windows here; a real room takes all.

# %%
model = vitlens.load("vitlens-toybox")
settings = Settings(cutting=Cutting(sizes=(0.32, 0.6, 1.05), most=60), batch_size=64)
scene = build(report.recording, Path("room.scene"), lambda: model, settings, check=report.to_dict())
len(scene.voxels.points)

# %% [markdown]
# Asking: by a scan of one of the objects, made somewhere else in other light.

# %%
one = room.placed[6]
scan = as_items(observe(one.stage, take=1))["point_cloud"]
answer = find(scene, model.encode({"point_cloud": [scan]})["point_cloud"][0].numpy(), model.space)
draw(scene, answer, Path("found.png"), title=f"asked by a scan of the {one.thing.material} {one.thing.shape}")
Image("found.png")

# %% [markdown]
# And by words, or the sound of it being struck, which tells the material:

# %%
name = f"{one.thing.material} {one.thing.shape}"
asked = [Asked(f"a scan of the {name}", answer)]
for modality, item, words in (
    ("text", f"a {name}", f"“a {name}”"),
    ("audio", as_items(observe(one.stage, take=1))["audio"], f"the sound of the {name}"),
):
    found = find(scene, model.encode({modality: [item]})[modality][0].numpy(), model.space)
    asked.append(Asked(words, found))
    print(f"{words}: {found.places[0].point.astype(float).round(2).tolist()} m, contrast {found.places[0].contrast:.1f}")
print(f"it stands at {((one.box()[0] + one.box()[1]) / 2).astype(float).round(2).tolist()} m")

# %% [markdown]
# All three on a page that turns (`--page` on the command line):

# %%
page = write_page(scene, asked, Path("page.html"), title="A room of toys")
f"{page}: {page.stat().st_size // 1000} kB"

# %% [markdown]
# Recordings of your own, every option, what was measured: [Scene search](../scene.md).

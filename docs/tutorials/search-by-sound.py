# %% [markdown]
# # Search a folder by a sound
#
# A folder of pictures is put into an index on disk; the sound of a thing that is struck finds what is made of the same.

# %%
import csv
from pathlib import Path

import vitlens
from vitlens.benchmarks.toybox import make_toybox
from vitlens.index import Index, Term
from vitlens.index.page import Asked, write_page

make_toybox("toybox", objects={"test": 24}, sensors=["image", "audio"], progress=False)
rows = list(csv.DictReader(Path("toybox/test.csv").open()))
len(rows), rows[0]["shape"], rows[0]["material"]

# %% [markdown]
# The pictures go into the index with what is known of them. On the command line this is `vitlens index build FOLDER -o
# things.index`.

# %%
model = vitlens.load("vitlens-toybox")
pictures = [f"toybox/{row['image']}" for row in rows]
index = Index.create("things.index", model.space, model="vitlens-toybox")
known = {name: [row[name] for row in rows] for name in ("shape", "material")}
seen = model.encode({"image": pictures})["image"]
index.add(seen, model.space, modality="image", sources=pictures, files=pictures, columns=known)
len(index)

# %% [markdown]
# Now ask by a sound. Sounds of the Toybox tell the material, and hardly the shape.

# %%
asked = next(row for row in rows if row["material"] == "metal")
sound = f"toybox/{asked['audio']}"
knock = model.encode({"audio": [sound]})["audio"][0]
answer = index.search([Term(knock, "audio")], model.space, k=5)
for hit in answer.hits:
    print(hit.rank, round(hit.score, 3), hit.source, hit.columns["material"], hit.columns["shape"])
print(answer.calibration)

# %% [markdown]
# A mixture: this sound, and the word *chair*; and with a filter on the columns, which is SQL.

# %%
word = model.encode({"text": ["a chair"]})["text"][0]
for hit in index.search([Term(knock, "audio"), Term(word, "text")], model.space, k=3).hits:
    print("with a chair:", hit.columns["material"], hit.columns["shape"])
for hit in index.search([Term(knock, "audio")], model.space, k=3, where="material <> 'metal'").hits:
    print("no metal:", hit.columns["material"], hit.columns["shape"])

# %% [markdown]
# `--page found.html` of the command line, from Python. The page holds its pictures itself:

# %%
page = write_page(
    index,
    [Asked("audio", sound, 1.0, {})],
    answer,
    Path("found.html"),
    reading=model.modality,
    title="Pictures of what sounds like this",
)
f"{page}: {page.stat().st_size // 1000} kB"

# %% [markdown]
# What an index keeps, how it scores and how it is asked from the command line: [Search](../search.md).

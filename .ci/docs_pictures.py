"""The pictures of the documentation, made while it is built, from what ships; called by mkdocs (`hooks` in mkdocs.yml).

pictures/way.svg            the way of the data
pictures/senses.png         an object by every sense, and what the model says
pictures/toybox.html        the demo's page
pictures/info-<sensor>.png  `vitlens info` of one of the demo's files
pictures/similarity.png     `vitlens similarity` of sounds with pictures
pictures/attention.png      `vitlens toybox attention` of the shipped lenses
pictures/edits.png          `vitlens toybox edits` of the shipped SEED-LLaMA
pictures/montages.png       `vitlens toybox montages` of the shipped lens, as it was measured
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from vitlens.benchmarks.toybox.demo.report import Demo
    from vitlens.model import ViTLens

STEPS = ("file", "Sample", "tensor", "tokens [b, n, d]", "tokens [b, m, D]", "embedding [b, E]")
BETWEEN = ("read", "transform", "ModEmbed", "Lens", "FrozenViT")
TRAINED = ("ModEmbed", "Lens")
ATTENDED = ["image", "point_cloud", "depth", "audio", "tactile", "eeg"]
"""Sensors whose attention docs/tokens.md speaks of."""
INK, PALE, TRAINS, FROZEN = "#1d2733", "#66727f", "#1b7f4d", "#2a6f97"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures to the site's files."""
    from mkdocs.structure.files import File

    for path in sorted(made().iterdir()):
        name = f"pictures/{path.name}"
        if (known := files.get_file_from_path(name)) is not None:
            files.remove(known)
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


@cache
def made() -> Path:
    """A folder with all pictures, made once in a process."""
    import vitlens
    from vitlens.benchmarks.toybox.demo.montages import montage_figure, shipped
    from vitlens.benchmarks.toybox.demo.poster import poster
    from vitlens.benchmarks.toybox.demo.run import MODEL, run_demo
    from vitlens.display.pictures import save

    folder, files = Path(tempfile.mkdtemp(prefix="vitlens-docs-")), Path(tempfile.mkdtemp(prefix="vitlens-demo-"))
    draw_way(folder / "way.svg")
    demo, model = run_demo(files), vitlens.load(MODEL)
    poster(demo, model, folder / "senses.png")
    shutil.copy(demo.report, folder / "toybox.html")
    draw_sensors(demo, model, folder)
    draw_similarity(demo, model, folder / "similarity.png")
    draw_attention(model, files, folder / "attention.png")
    draw_edits(model, files, folder / "edits.png")
    save(montage_figure(shipped()), folder / "montages.png")
    shutil.rmtree(files)
    return folder


def draw_sensors(demo: Demo, model: ViTLens, folder: Path) -> None:
    """What `vitlens info` draws of the first object's files."""
    from vitlens.benchmarks.toybox.demo.run import file_item
    from vitlens.display.pictures import info_picture

    for name, path in demo.files[0].items():
        reading = model.modality(name)
        sample = reading.load(file_item(name, path))
        info_picture(reading, sample, reading.transform(sample), folder / f"info-{name}.png")


def draw_similarity(demo: Demo, model: ViTLens, path: Path) -> None:
    """What `vitlens similarity` draws of eight sounds and the pictures of the same objects."""
    from vitlens.display.pictures import heatmap

    sounds, pictures = ([f"{thing.caption}{ending}" for thing in demo.things[:8]] for ending in (".wav", ".png"))
    cosines = model.similarity(demo.embeddings["audio"][:8], demo.embeddings["image"][:8])
    heatmap(cosines.numpy(), sounds, pictures, path, title="cosine of sounds with pictures")


def draw_attention(model: ViTLens, drawings: Path, path: Path) -> None:
    """What `vitlens toybox attention` draws of two objects of every seen shape."""
    from vitlens.benchmarks.toybox import World
    from vitlens.benchmarks.toybox.demo.attention import attended, attention_figure
    from vitlens.benchmarks.toybox.sensors.drawn import draw
    from vitlens.display.pictures import save

    drawn = draw(drawings / "drawn", World(), "test", 56, ATTENDED)
    save(attention_figure(attended(model, drawn, name=model.spec.name)), path)


def draw_edits(model: ViTLens, drawings: Path, path: Path) -> None:
    """What `vitlens toybox edits` draws."""
    from vitlens.benchmarks.toybox import World
    from vitlens.benchmarks.toybox.demo.edits import shipped_figure
    from vitlens.display.pictures import save

    save(shipped_figure(model, drawings / "edited", World()), path)


def draw_way(path: Path) -> None:
    """The way of the data: what becomes of a file, which parts are trained, and where a language model takes the tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.55, len(STEPS) - 0.45)
    axes.set_ylim(-1.25, 0.75)
    axes.axis("off")
    for place, step in enumerate(STEPS):
        box = {"boxstyle": "round,pad=0.5", "fc": "#eef2f6", "ec": "#c5d0da"}
        axes.text(place, 0, step.replace(" ", "\n", 1), ha="center", va="center", fontsize=11, color=INK, bbox=box)
    for place, name in enumerate(BETWEEN):
        colour = TRAINS if name in TRAINED else FROZEN if name == "FrozenViT" else PALE
        axes.annotate("", (place + 0.66, 0), (place + 0.34, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
        axes.text(place + 0.5, 0.32, name, ha="center", fontsize=11, color=colour, weight="bold")
    below = {4: "the splice point: a host's own ViT\n(InstructBLIP, LLaVA, SEED)", 5: "store, index,\nsearch, service"}
    for place, text in {2.5: "green: trained   blue: frozen", **below}.items():
        axes.text(place, -0.98, text, ha="center", va="center", fontsize=10, color=PALE)
        if place in below:
            axes.annotate("", (place, -0.78), (place, -0.34), arrowprops={"arrowstyle": "-|>", "color": PALE, "lw": 1.5})
    figure.savefig(path, format="svg", facecolor="white")

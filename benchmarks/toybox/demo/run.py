"""What `vitlens demo` does: held-out objects of the Toybox as files of every sensor, embedded, told apart, found, shown.

Nothing is downloaded: the model is the shipped `vitlens-toybox`, and no object of the demo was in its training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vitlens.disk import output_folder

if TYPE_CHECKING:
    from vitlens.benchmarks.toybox.demo.report import Demo
    from vitlens.benchmarks.toybox.world.objects import Split

MODEL = "vitlens-toybox"
OBJECTS: dict[Split, int] = {"test": 12, "unseen_pairs": 5, "unseen_shapes": 5}
"""Held-out objects of each split."""


def run_demo(folder: Path, *, say: Callable[[str], None] = lambda text: None) -> Demo:
    """Write held-out objects' files to `folder`, embed them, and write `folder`/report.html.

    Raises:
        OptionError: `folder` is a file, or holds objects of another world.
    """
    import torch

    import vitlens
    from vitlens.benchmarks.toybox.demo.evaluate import Results, classify_split, retrieve
    from vitlens.benchmarks.toybox.demo.plugged import can_plug, plug
    from vitlens.benchmarks.toybox.demo.report import Demo, shown, write_report
    from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
    from vitlens.benchmarks.toybox.sensors.make import make_toybox
    from vitlens.benchmarks.toybox.world.objects import World

    output_folder("the demo", folder)
    world = World()
    model = vitlens.load(MODEL)
    senses = [name for name in SENSORS if model.supports(name)]
    say(f"drawing {sum(OBJECTS.values())} held-out objects, each as {len(senses)} sensors' files")
    counts = {str(split): count for split, count in OBJECTS.items()}
    manifests = make_toybox(folder, objects=counts, world=world, sensors=senses, progress=False)
    things = [thing for split, count in OBJECTS.items() for thing in world.objects(split, count)]
    files = [{name: folder / thing.split / name / f"{thing.id}{SENSORS[name].ending}" for name in senses} for thing in things]
    say(f"embedding the files with {MODEL}")
    items = {name: [file_item(name, own[name]) for own in files] for name in senses}
    embeddings = dict(model.encode(items))
    embeddings["text"] = model.encode({"text": [thing.caption for thing in things]})["text"]
    results = Results()
    for split in OBJECTS:
        rows = torch.tensor([i for i, thing in enumerate(things) if thing.split == split])
        own = {name: found[rows] for name, found in embeddings.items()}
        results.accuracies += classify_split(model, own, [things[i] for i in rows], split, world)
    results.retrievals = retrieve(embeddings, len(things))
    demo = Demo(folder, things, files, manifests["test"], embeddings, results, folder / "report.html")
    if can_plug():
        say("plugging the lenses into a language model and a painter that know only pictures")
        demo.plugged = plug(model, things, items, embeddings, shown(things))
    else:
        say("a language model and a painter would follow here: pip install 'vitlens[mllm]'")
    say("writing the report")
    write_report(demo, model, commands=next_commands(demo))
    return demo


def file_item(name: str, path: Path) -> dict[str, object]:
    """A file with what its sensor's files need to be told."""
    from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS, Detail

    sensor = SENSORS[name]
    return {"source": path, **sensor.options(Detail()), **(sensor.file_options or {})}


def next_commands(demo: Demo) -> list[str]:
    """Three commands to go on with."""
    own = demo.files[0]
    pictures = demo.folder / "test" / "image"
    labels = ",".join(sorted({thing.shape for thing in demo.things[:6]}))
    return [
        f'vitlens classify {own["point_cloud"]} --labels "{labels}" --model {MODEL}',
        f"vitlens similarity {own['audio']} --with {pictures}/*.png --model {MODEL}",
        "vitlens toybox eval    # the whole table",
    ]

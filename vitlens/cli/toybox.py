"""`vitlens toybox make | train | hosts | attention | montages | eval`: the embedded world as files, trainings and tables."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from vitlens.checks import known
from vitlens.cli.console import say, say_json, say_tables
from vitlens.cli.options import DryRunOption, JsonOption, new_app
from vitlens.disk import ignore_runs, output_file, output_folder
from vitlens.libraries import check_installed

app = new_app("The Toybox: a procedural world that every sensor can measure, to see the method work without a download.")
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the world.")]
WorkersOption = Annotated[int, typer.Option("--num-workers", "-j", min=0, help="Processes that draw and read objects.")]

TRAINING = ("accelerate", "omegaconf")
HOSTS = ("transformers", "diffusers")
"""Libraries of extras that a training needs, and those of the shipped hosts."""
SEED = "seed"
"""The SEED-LLaMA among the names of hosts."""


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    objects: Annotated[int, typer.Option("--objects", "-n", min=1, help="Training objects; the other splits follow.")] = 1000,
    sensor: Annotated[list[str] | None, typer.Option("--sensor", help="Only this sensor; may be repeated.")] = None,
    pixels: Annotated[int, typer.Option(min=16, help="Side of pictures, depth maps, touches and thermal maps.")] = 64,
    points: Annotated[int, typer.Option(min=64, help="Points of a scan.")] = 2048,
    seed: SeedOption = 0,
    num_workers: WorkersOption = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and stop.")] = False,
) -> None:
    """Write objects as files of every sensor, with a manifest for each split. The same command goes on where it stopped."""
    from vitlens.benchmarks.toybox.sensors.catalogue import Detail, checked_sensors
    from vitlens.benchmarks.toybox.sensors.make import make_toybox, split_sizes
    from vitlens.benchmarks.toybox.world.objects import World

    names, sizes = checked_sensors(sensor), split_sizes(objects, World(seed))
    if dry_run:
        for split, count in sizes.items():
            say(f"{folder}/{split}.csv: {count} objects, {count * len(names)} files")
        return
    detail = Detail(picture=pixels, depth=pixels, touch=pixels, thermal=pixels, points=points)
    for split, path in make_toybox(folder, objects=objects, seed=seed, sensors=names, detail=detail, workers=num_workers).items():
        say(f"{split}: {path}")


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; the same command goes on there.")] = Path(
        "runs/toybox"
    ),
    sensor: Annotated[list[str] | None, typer.Option("--sensor", help="Only this sensor's lens; may be repeated.")] = None,
    objects: Annotated[
        int | None,
        typer.Option("--objects", "-n", min=1, help="Objects that the lenses look at (default: 12000 or 24000, by sensor)."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every lens (default: 6 to 12, by sensor).")] = None,
    clip_objects: Annotated[int, typer.Option(min=1, help="Pictures that the CLIP looks at.")] = 24_000,
    clip_epochs: Annotated[int, typer.Option(min=1, help="Epochs of the CLIP.")] = 10,
    ablations: Annotated[
        bool | None, typer.Option("--ablations/--no-ablations", help="The method's ablations, too (default: without --start).")
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens/--no-tokens", help="With terms on every lens's tokens, for hosts that read those.")
    ] = True,
    start: Annotated[
        str | None, typer.Option("--start", help="Take the CLIP of this Toybox model, and its lenses but those of --sensor.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=2, help="Objects of a lens's step.")] = 128,
    precision: Annotated[str, typer.Option(help="Arithmetic of the lenses: bf16, or fp32 on CPUs without it.")] = "bf16",
    seed: SeedOption = 0,
    num_workers: WorkersOption = 2,
    dry_run: DryRunOption = False,
) -> None:
    """Train it all from nothing: a CLIP, a lens for every sensor in front of its frozen ViT, and the method's ablations.

    A GPU is used where there is one: a lens took two to six minutes on an H100; on two cores count on most of a day. It ends with
    one table of what was measured. A stopped run goes on with the same command. With `--start` the model's other lenses stay as
    they are.
    """
    if not dry_run:
        check_installed("vitlens toybox train", TRAINING, "train")
    from vitlens.benchmarks.toybox.demo.tables import ablation_table, sensor_tables, time_table
    from vitlens.benchmarks.toybox.training.clip import ClipRecipe
    from vitlens.benchmarks.toybox.training.lenses import ABLATED, ABLATIONS, LENSES
    from vitlens.benchmarks.toybox.training.recipes import ToyboxRecipe, stages
    from vitlens.benchmarks.toybox.training.train import train_toybox
    from vitlens.zoo import find_spec

    known = [name for name in LENSES if start is None or name in find_spec(start).modalities]
    recipe = ToyboxRecipe(
        clip=ClipRecipe(objects=clip_objects, clip_only=max(1, clip_objects // 6), epochs=clip_epochs),
        sensors=tuple(sensor or known),
        objects=objects,
        epochs=epochs,
        tokens=tokens,
        start=start,
        batch_size=batch_size,
        precision=cast(Any, precision),
        ablations=tuple(ABLATIONS) if (start is None if ablations is None else ablations) else (),
        seed=seed,
    )
    if dry_run:
        for stage in stages(recipe):
            say(stage)
        return
    ignore_runs(output)
    trained = train_toybox(output, recipe, workers=num_workers)
    ablated = [ablation_table(ABLATED, trained.ablations, ABLATIONS)] if trained.ablations else []
    say_tables([*sensor_tables(trained.results), *ablated, time_table(trained.seconds)])
    say(f"model: {output / 'model'}")


@app.command()
def hosts(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; the same command goes on there.")] = Path(
        "runs/toybox"
    ),
    model: Annotated[str, typer.Option("--model", "-m", help="The Toybox model whose ViT they get.")] = "vitlens-toybox",
    objects: Annotated[int, typer.Option("--objects", "-n", min=1, help="Pictures that they look at.")] = 24_000,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this language model: instructblip, llava or seed; may be repeated. Of another the shipped one is measured."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the language models; of the SEED-LLaMA twice as many.")] = 8,
    alone: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the pictures of which the InstructBLIP sees the class token alone; 0: as hosts usually learn.",
        ),
    ] = 0.0,
    painter: Annotated[bool, typer.Option(help="Train the painter, too; otherwise the shipped one is measured.")] = True,
    num_workers: WorkersOption = 2,
    dry_run: DryRunOption = False,
) -> None:
    """Train what lenses are plugged into, on pictures alone: tiny InstructBLIP, LLaVA, SEED-LLaMA, unCLIP; then plug lenses in.

    A language model took four minutes on an H100, the shipped unCLIP an hour on two busy cores. It ends with a table of what
    all make of every sensor; a stopped run goes on.
    """
    if not dry_run:
        check_installed("vitlens toybox hosts", TRAINING, "train")
        check_installed("vitlens toybox hosts", HOSTS, "mllm")
    from vitlens.benchmarks.toybox.demo.tables import generator_tables
    from vitlens.benchmarks.toybox.training.generators import train_generators
    from vitlens.benchmarks.toybox.training.host import HOST_FOLDERS, HOST_NAMES, HostRecipe, answering
    from vitlens.benchmarks.toybox.training.painter import PainterRecipe
    from vitlens.benchmarks.toybox.training.recipes import GeneratorsRecipe
    from vitlens.benchmarks.toybox.training.seed_networks import SeedRecipe, composing
    from vitlens.model import load

    known("toybox: unknown language model", host or (), (*HOST_FOLDERS, SEED))
    kinds = dict.fromkeys(host or (*HOST_FOLDERS, SEED))
    hosts = tuple(HostRecipe(cast(Any, kind), answering(epochs), alone=alone) for kind in kinds if kind != SEED)
    composer = SeedRecipe(language=composing(2 * epochs)) if SEED in kinds else None
    recipe = GeneratorsRecipe(objects, max(1, objects // 6), hosts, composer, PainterRecipe() if painter else None)
    if dry_run:
        pictures = recipe.objects + recipe.clip_only
        say(f"draw {pictures} pictures, or take those of the CLIP in {output}")
        for one in recipe.hosts:
            say(f"a tiny {HOST_NAMES[one.kind]}: {one.pace.schedule.epochs} epochs of questions and answers about them")
        if recipe.composer is not None:
            stages = {"tokenizer": recipe.composer.quantizer, "LLaMA": recipe.composer.language}
            said = ", ".join(f"{name} {pace.schedule.epochs} epochs" for name, pace in stages.items())
            say(f"a tiny SEED-LLaMA: {said}; and a picture more of each object, after an edit")
        if recipe.painter is not None:
            stages = {"autoencoder": recipe.painter.autoencoder, "diffusion": recipe.painter.drawing}
            say("a tiny unCLIP: " + ", ".join(f"{name} {pace.schedule.epochs} epochs" for name, pace in stages.items()))
        return
    ignore_runs(output)
    say_tables(generator_tables(train_generators(output, load(model), recipe, workers=num_workers)))
    say(f"hosts: {output / 'generators'}")


@app.command()
def attention(
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure: .png, .svg or .pdf.")] = Path("attention.png"),
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="A zoo name or model folder; may be repeated.")] = None,
    objects: Annotated[int, typer.Option("--objects", "-n", min=1, help="Held-out objects.")] = 112,
    folder: Annotated[Path | None, typer.Option(help="Keep here what is drawn (default: a temporary folder).")] = None,
    seed: SeedOption = 0,
    num_workers: WorkersOption = 2,
) -> None:
    """Draw how much of the shipped host's attention lies on the class token, for pictures and for what sensors measured.

    Two models beside each other show what training with terms on tokens changes (docs/tokens.md).
    """
    from vitlens.benchmarks.toybox.demo.attention import attended, attention_figure, attention_table
    from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
    from vitlens.benchmarks.toybox.sensors.drawn import draw
    from vitlens.benchmarks.toybox.world.objects import World
    from vitlens.display.pictures import FORMATS, save
    from vitlens.model import load

    output_file("figure", output, FORMATS)
    if folder is not None:
        output_folder("the objects", folder)
    models = {name: load(name) for name in model or ["vitlens-toybox"]}
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        drawn = draw(Path(place), World(seed), "test", objects, list(SENSORS), workers=num_workers)
        rows = [row for name, loaded in models.items() for row in attended(loaded, drawn, name=Path(name).name)]
    say_tables([attention_table(rows)])
    say(f"figure: {save(attention_figure(rows), output)}")


@app.command()
def montages(
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure: .png, .svg or .pdf.")] = Path("montages.png"),
    model: Annotated[str, typer.Option("--model", "-m", help="A zoo name, or a model folder.")] = "vitlens-toybox",
    objects: Annotated[int, typer.Option("--objects", "-n", min=1, help="Held-out objects.")] = 560,
    folder: Annotated[Path | None, typer.Option(help="Keep here what is drawn (default: a temporary folder).")] = None,
    seed: SeedOption = 0,
    num_workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Measure the EEG lens with 8 to 64 of its 128 electrodes: the others made by splines, beside zeros in their place."""
    from dataclasses import asdict

    from vitlens.benchmarks.toybox.demo.montages import montage_figure, montage_table, recorded
    from vitlens.benchmarks.toybox.sensors.drawn import draw
    from vitlens.benchmarks.toybox.world.objects import World
    from vitlens.display.pictures import FORMATS, save
    from vitlens.model import load

    output_file("figure", output, FORMATS)
    if folder is not None:
        output_folder("the objects", folder)
    loaded = load(model, modalities=["eeg", "text"])
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        rows = recorded(loaded, draw(Path(place), World(seed), "test", objects, ["image", "eeg"], workers=num_workers))
    figure = save(montage_figure(rows), output)
    if as_json:
        say_json([asdict(row) for row in rows])
    else:
        say_tables([montage_table(rows)])
        say(f"figure: {figure}")


@app.command()
def edits(
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure: .png, .svg or .pdf.")] = Path("edits.png"),
    objects: Annotated[int, typer.Option("--objects", "-n", min=2, max=40, help="Held-out objects, a row each.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Keep here what is drawn (default: a temporary folder).")] = None,
    seed: SeedOption = 0,
    num_workers: WorkersOption = 2,
) -> None:
    """Draw what the shipped SEED-LLaMA makes of scans, depth maps and sounds: described, painted, edited, composed."""
    check_installed("vitlens toybox edits", HOSTS, "mllm")
    from vitlens.benchmarks.toybox.demo.edits import shipped_figure
    from vitlens.benchmarks.toybox.world.objects import World
    from vitlens.display.pictures import FORMATS, save
    from vitlens.model import load

    output_file("figure", output, FORMATS)
    if folder is not None:
        output_folder("the objects", folder)
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        figure = shipped_figure(load("vitlens-toybox"), Path(place), World(seed), objects=objects, workers=num_workers)
    say(f"figure: {save(figure, output)}")


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Option("--model", "-m", help="A zoo name, or a model folder.")] = "vitlens-toybox",
    objects: Annotated[
        int | None, typer.Option("--objects", "-n", min=1, help="Objects of each split (default: 560, 280 and 200).")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep here what is drawn (default: a temporary folder).")] = None,
    hosts: Annotated[bool, typer.Option("--hosts", help="Measure the shipped hosts with the model's lenses instead.")] = False,
    seed: SeedOption = 0,
    num_workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on held-out objects: zero-shot classes and cross-modal retrieval, beside chance.

    With `--hosts`: what the shipped language models say, and the shipped painter draws, of every sensor's measurements; that
    takes more than an hour on two cores, so try `--objects 20` first.
    """
    if hosts:
        check_installed("vitlens toybox eval --hosts", HOSTS, "mllm")
    from vitlens.benchmarks.toybox.demo.evaluate import HELD_OUT
    from vitlens.benchmarks.toybox.demo.evaluate import evaluate as measure
    from vitlens.benchmarks.toybox.demo.tables import generator_tables, sensor_tables
    from vitlens.benchmarks.toybox.world.objects import World
    from vitlens.model import load

    if folder is not None:
        output_folder("the objects", folder)
    counts = dict.fromkeys(HELD_OUT, objects) if objects else HELD_OUT
    loaded = load(model)
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        if hosts:
            from vitlens.benchmarks.toybox.demo.generated import measure_generators

            made = measure_generators(Path(place), loaded, world=World(seed), counts=counts, workers=num_workers)
            values, tables = made.to_dict(), generator_tables(made)
        else:
            found = measure(loaded, Path(place), world=World(seed), counts=counts, workers=num_workers, progress=not as_json)
            values, tables = found.to_dict(), sensor_tables(found)
    if as_json:
        say_json(values)
    else:
        say_tables(tables)

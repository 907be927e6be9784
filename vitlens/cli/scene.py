"""`vitlens scene check | build | query | export | proof`: posed RGB-D becomes a map that any sensor can ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitlens.cli.options import MODEL, BatchOption, DeviceOption, DtypeOption, JsonOption, ModelOption, WorkersOption, new_app
from vitlens.cli.recordings import checked, numbers_of, say_report, sound, with_overrides
from vitlens.cli.streams import Mixture, ReadOption, Streams, WeightOption, read_options, with_streams
from vitlens.display.table import Table
from vitlens.errors import OptionError
from vitlens.scene.recording import Overrides

if TYPE_CHECKING:
    from vitlens.scene.folder import Scene
    from vitlens.scene.search import Answer

app = new_app(help="Find things in a scanned place by any sense: posed RGB-D becomes a map of embeddings that can be asked.")
FolderArgument = Annotated[Path, typer.Argument(help="A folder of posed RGB-D frames.", show_default=False)]


@app.command(no_args_is_help=True)
@with_overrides
def check(
    given: Overrides,
    folder: FolderArgument,
    as_json: JsonOption = False,
) -> None:
    """Say how a recording is understood, and whether its frames fit each other: scale, poses, intrinsics, lost frames.

    Frames are reprojected into each other. What does not fit is named with its likely cause and the option that repairs it; the
    exit code is 1 then.

    **Examples**

    vitlens scene check livingroom

    vitlens scene check my-scan --layout tum --depth-scale 1000 --pose-direction world-to-camera
    """
    _, report = checked(folder, given)
    if as_json:
        from vitlens.cli.console import say_json

        say_json(report.to_dict())
    else:
        say_report(report)
    if report.faults:
        raise typer.Exit(1)


@app.command(no_args_is_help=True)
@with_overrides
def build(
    given: Overrides,
    folder: FolderArgument,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The folder of the scene.")] = None,
    model: ModelOption = MODEL,
    voxel: Annotated[float, typer.Option(help="Sides of the voxels that carry embeddings, in metres.")] = 0.05,
    max_depth: Annotated[float, typer.Option(help="Metres beyond which depth is not believed.")] = 6.0,
    windows: Annotated[str, typer.Option(metavar="METRES,...", help="Sizes of the windows that are cut out.")] = "0.3,0.6,1.2",
    window_step: Annotated[float, typer.Option(help="Between windows, as a share of their size.")] = 0.5,
    most_windows: Annotated[int, typer.Option(min=1, help="Windows of a frame at most.")] = 400,
    segmenter: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A function (RGB, metres) -> masks [k, h, w] instead of windows."),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Take the options that the check suggests.")] = False,
    skip_check: Annotated[bool, typer.Option("--no-check", help="Build in spite of faults that the check finds.")] = False,
    batch_size: BatchOption = 32,
    num_workers: WorkersOption = 0,
    dtype: DtypeOption = "fp32",
    device: DeviceOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Build a finished scene anew, of the same crops.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build a scene: check the recording, fuse its surface, embed what its frames show, and give it to the voxels.

    Stop it at any moment: the same command goes on from there.

    **Examples**

    vitlens scene build livingroom -o livingroom.scene

    vitlens scene build my-scan -o my.scene --repair --voxel 0.03 --device cuda
    """
    from vitlens.cli.console import say_json
    from vitlens.cli.options import open_model
    from vitlens.display.progress import ProgressBar
    from vitlens.scene.build import Settings, check_folder
    from vitlens.scene.build import build as build_scene
    from vitlens.scene.windows import Cutting, load_segmenter

    if output is None:
        raise OptionError("say where the scene goes with -o FOLDER")
    sizes = numbers_of("--windows", windows, "0.3,0.6,1.2") or ()
    own = load_segmenter(segmenter) if segmenter else None
    cutting = Cutting(sizes, window_step, most_windows, own, segmenter or "")
    settings = Settings(voxel, max_depth, cutting, batch_size, num_workers, dtype)
    check_folder(output, overwrite=overwrite)
    recording, report = sound(folder, given, repair=repair, anyway=skip_check)
    with ProgressBar() as bar:
        scene = build_scene(
            recording,
            output,
            lambda: open_model(model, ["image"], device),
            settings,
            check=report.to_dict(),
            overwrite=overwrite,
            progress=bar.update,
        )
    say_json(scene.card) if as_json else say_scene(scene)


def say_scene(scene: Scene) -> None:
    """What was built."""
    from vitlens.cli.console import say_pairs

    card = scene.card
    where = " ".join(f"{part} {seconds:g}" for part, seconds in card["seconds"].items())
    say_pairs(
        [
            ("scene", f"{scene.folder}: {card['frames']} frames, {card['crops']} crops, {card['voxels']} voxels"),
            ("embeddings", f"{card['rows']} of {card['model']} ({card['licence']}), float16, {card['embeddings_mb']:g} MB"),
            ("seconds", f"{card['seconds_per_frame']:g} a frame ({where})"),
            ("peak memory", f"{card['peak_memory_mb']:.0f} MB" if card["peak_memory_mb"] else "not known"),
            ("next", f"vitlens scene query {scene.folder} --text 'a chair' --page"),
        ]
    )


@app.command(no_args_is_help=True)
@with_streams(away=True)
def query(
    streams: Streams,
    scene: Annotated[Path, typer.Argument(help="A folder that vitlens scene build wrote.", show_default=False)],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Another model of the scene's space.")] = None,
    weight: WeightOption = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the picture, the PLY and the page.")] = Path("found"),
    page: Annotated[bool, typer.Option("--page", help="Also write a page on which the scene turns.")] = False,
    places: Annotated[int, typer.Option(min=1, help="Places at most.")] = 3,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="How warm a place is, between the median (0) and the best voxel (1).")
    ] = 0.5,
    read_option: ReadOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a scene by any sense, by words, or by a weighted mixture: the box in 3D, the frames that show it, and the heat.

    Writes heat.ply (voxels in colour, with their cosine), heat.png, answer.json, and with --page page.html.

    **Examples**

    vitlens scene query home.scene --audio flush.wav --page

    vitlens scene query home.scene --text "something to sit on" --image wood.jpg=0.5 --minus-text bed -o seat
    """
    from vitlens.cli.console import say_json
    from vitlens.cli.options import open_model
    from vitlens.scene.folder import open_scene
    from vitlens.scene.search import find

    mixture = Mixture.of(streams, weight)
    options = read_options(mixture.streams, read_option)
    opened = open_scene(scene)
    loaded = open_model(model or opened.model, list(mixture.streams), device)
    found = mixture.embed(loaded, options)
    vector = loaded.compose([row for rows in found.values() for row in rows], weights=mixture.flat)
    answer = find(opened, vector.numpy(), loaded.space, most=places, share=share)
    files = write_answer(opened, answer, mixture.label, output, page=page)
    if as_json:
        say_json({"scene": str(scene), "places": [place.to_dict() for place in answer.places], "files": [str(f) for f in files]})
    else:
        say_answer(answer, files)


def write_answer(scene: Scene, answer: Answer, label: str, folder: Path, *, page: bool) -> list[Path]:
    """heat.ply, heat.png, answer.json and, with `page`, page.html.

    Raises:
        OptionError: `folder` is a file.
    """
    import json

    from vitlens.disk import output_folder, write_text
    from vitlens.scene.page import Asked, write_page
    from vitlens.scene.view import Studio, draw, write_heat

    output_folder("the answer", folder).mkdir(parents=True, exist_ok=True)
    studio = Studio(scene)
    files = [write_heat(scene, answer, folder / "heat.ply"), draw(scene, answer, folder / "heat.png", title=label, studio=studio)]
    content = {"query": label, "scene": str(scene.folder), "places": [place.to_dict() for place in answer.places]}
    write_text(folder / "answer.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    files.append(folder / "answer.json")
    if page:
        files.append(write_page(scene, [Asked(label, answer)], folder / "page.html", studio=studio))
    return files


def say_answer(answer: Answer, files: Sequence[Path]) -> None:
    """The places as a table, and the files."""
    from vitlens.cli.console import say, say_table

    rows = [
        (
            ", ".join(f"{value:.2f}" for value in place.point),
            " x ".join(f"{side:.2f}" for side in place.high - place.low),
            f"{place.score:.3f}",
            f"{place.contrast:.1f}",
            ", ".join(view.name for view in place.views) or "none",
        )
        for place in answer.places
    ]
    say_table(Table(("point, m", "box, m", "cosine", "contrast", "frames"), rows, numbers=("cosine", "contrast")))
    say(", ".join(str(path) for path in files))


@app.command(no_args_is_help=True)
def export(
    scene: Annotated[Path, typer.Argument(help="A folder that vitlens scene build wrote.", show_default=False)],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the three files.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Write a scene for OpenLex3D: embeddings.npy, index.npy and point_cloud.pcd.

    **Example**

    vitlens scene export home.scene -o home.openlex3d
    """
    from vitlens.cli.console import say
    from vitlens.scene.export import export_openlex3d
    from vitlens.scene.folder import open_scene

    if output is None:
        raise OptionError("say where the files go with -o FOLDER")
    for path in export_openlex3d(open_scene(scene), output, overwrite=overwrite):
        say(str(path))


@app.command()
def proof(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; a stopped run goes on there.")] = Path("runs/scene"),
    rooms: Annotated[int, typer.Option(min=1, help="Rooms of twelve objects.")] = 3,
    takes: Annotated[int, typer.Option(min=1, help="Measurements of every object by every sense.")] = 3,
    frames: Annotated[int, typer.Option(min=10, help="Frames of the walk through each room.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Measure what every sense finds in rooms of Toybox objects, with the shipped model: no download, half an hour on two cores.

    It ends with a table, beside chance; page.html shows a room to turn, asked by every sense.
    """
    from dataclasses import asdict

    from vitlens.benchmarks.scene.proof import prove, table
    from vitlens.cli.console import remark, say, say_json, say_tables

    scores = prove(output, rooms=rooms, takes=takes, frames=frames, say=remark)
    if as_json:
        say_json([asdict(score) for score in scores])
    else:
        say_tables([table(scores)])
        say(f"{output / 'page.html'} shows it")

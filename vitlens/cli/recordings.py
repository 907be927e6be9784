"""Options that say how a recording is meant (`--depth-scale`, `--pose-direction` ...), for commands that open one; its check."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens.cli.options import own_parameters
from vitlens.errors import OptionError

if TYPE_CHECKING:
    from vitlens.scene.check import Report
    from vitlens.scene.recording import Overrides, Recording

OPTIONS: dict[str, Any] = {
    "layout": Annotated[
        str | None, typer.Option(help="open3d, realsense, tum, scannet, replica or record3d; by default told by the content.")
    ],
    "intrinsics": Annotated[str | None, typer.Option(metavar="FX,FY,CX,CY", help="In pixels, of the depth maps.")],
    "intrinsics_size": Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Size of the pictures that the intrinsics belong to, if another.")
    ],
    "depth_scale": Annotated[float | None, typer.Option(help="Stored depth units per metre (1000: millimetres).")],
    "pose_convention": Annotated[
        str | None, typer.Option(help="Axes of the camera: opencv (y down, z forward) or opengl (y up, z back).")
    ],
    "pose_direction": Annotated[str | None, typer.Option(help="What poses are: camera-to-world or world-to-camera.")],
    "pose_scale": Annotated[float | None, typer.Option(help="Metres of one unit of the stored positions.")],
    "trajectory": Annotated[Path | None, typer.Option(help="The file of poses, if not where the layout has it.")],
    "every": Annotated[int, typer.Option(min=1, help="Take one frame of so many.")],
    "time_difference": Annotated[
        float, typer.Option(help="Seconds by which a picture, its depth and its pose may lie apart (tum).")
    ],
}


def with_overrides(command: Callable[..., Any]) -> Callable[..., None]:
    """Give a command (whose first argument is `given`, an `Overrides`) the options above, behind its own."""

    def run(**values: Any) -> None:
        said = {name: values.pop(name) for name in OPTIONS}
        command(overrides(**said), **values)

    defaults = {"every": 1, "time_difference": 0.02}
    own = own_parameters(command)
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
    for name, annotation in OPTIONS.items():
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=defaults.get(name), annotation=annotation))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def overrides(intrinsics: str | None, intrinsics_size: str | None, **said: Any) -> Overrides:
    """What the user said of a recording.

    Raises:
        OptionError: a value that cannot be read or is not allowed.
    """
    from vitlens.scene.recording import Overrides

    size = numbers_of("--intrinsics-size", intrinsics_size and intrinsics_size.lower(), "640x480", 2, mark="x")
    if size is not None and any(value != int(value) for value in size):
        raise OptionError(f"--intrinsics-size {intrinsics_size!r}: write it as 640x480")
    return Overrides(
        intrinsics=numbers_of("--intrinsics", intrinsics, "525,525,319.5,239.5", 4),
        intrinsics_size=None if size is None else tuple(int(value) for value in size),
        **said,
    )


def numbers_of(
    option: str, text: str | None, example: str, count: int | None = None, mark: str = ","
) -> tuple[float, ...] | None:
    """A text such as `example` as its numbers; None stays None.

    Raises:
        OptionError: something else.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(mark))
    except ValueError:
        values = ()
    if not values or (count is not None and len(values) != count):
        raise OptionError(f"{option} {text!r}: write it as {example}")
    return values


def checked(folder: Path, given: Overrides) -> tuple[Recording, Report]:
    """The recording, and what holding its frames against each other found."""
    from vitlens.display.progress import ProgressBar
    from vitlens.scene.check import check
    from vitlens.scene.layouts import open_recording

    recording = open_recording(folder, given)
    with ProgressBar() as bar:
        report = check(recording, progress=lambda done, total: bar.update("holding frames against each other", done, total))
    return report.recording, report


def say_report(report: Report) -> None:
    """A report in words."""
    from vitlens.cli.console import say, say_pairs
    from vitlens.scene.check import metres

    recording = report.recording
    camera, colour = recording.depth_camera, recording.colour_camera
    numbers = ", ".join(f"{value:g}" for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    pairs = [
        ("recording", f"{recording.folder}: {recording.layout}, {len(recording.usable)} of {len(recording.frames)} frames"),
        ("depth", f"{camera.width} x {camera.height}, {recording.depth_scale:g} units per metre"),
        ("colour", f"{colour.width} x {colour.height}"),
        ("intrinsics", f"{numbers} (of the depth maps)"),
        ("poses", f"{recording.direction}, {recording.convention}, unit {recording.pose_scale:g} m"),
        ("median depth error", metres(report.now.error)),
    ]
    pairs += [("note", note) for note in report.notes]
    shown = recording.lost[:10]
    pairs += [("lost frame", f"{name}: {why}") for name, why in shown]
    pairs += [("lost frame", f"... and {len(recording.lost) - 10} more (--json lists all)")] if len(recording.lost) > 10 else []
    pairs += [("fault", fault.text + (f"; repaired by {fault.option}" if fault.option else "")) for fault in report.faults]
    say_pairs(pairs)
    if not report.faults:
        say("its frames fit each other" if report.now.seen else "nothing could be held against each other")


def sound(folder: Path, given: Overrides, *, repair: bool, anyway: bool) -> tuple[Recording, Report]:
    """The recording once its frames fit each other, or its faults are repaired or waived.

    Raises:
        OptionError: they do not.
    """
    from vitlens.cli.console import remark

    recording, report = checked(folder, given)
    if report.faults and repair and report.repair:
        for fault in report.faults:
            remark(f"{fault.text}; taking {fault.option}")
        recording, report = checked(folder, replace(given, **report.repair))
    for note in report.notes:
        remark(note)
    for name, why in report.recording.lost[:10]:
        remark(f"frame {name} is left out: {why}")
    if report.faults and not anyway:
        options = " ".join(fault.option for fault in report.faults if fault.option)
        hint = f"{options} repairs it (or --repair)" if options else "mend it"
        faults = "; ".join(fault.text for fault in report.faults)
        raise OptionError(f"{folder}: {faults}. {hint}; --no-check builds all the same")
    return recording, report

"""The layouts recordings come in, each by name and told by its content: how its files become a `Recording`.

A layout only lists files, poses and what its makers say of cameras and units; `open_recording` puts the user's word above that,
finds the pictures' sizes, and marks what is lost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vitlens.checks import either, one_of
from vitlens.errors import InputError, OptionError
from vitlens.scene.camera import Intrinsics
from vitlens.scene.layout import Found, Layout
from vitlens.scene.layout_files import LAYOUTS
from vitlens.scene.recording import Frame, Overrides, Recording, marked, read_colour, read_stored_depth


def open_recording(folder: str | Path, overrides: Overrides | None = None) -> Recording:
    """Understand a folder of posed RGB-D frames; no picture but the first is read.

    Raises:
        InputError: no such folder, no layout or several fit, or files of the layout are missing or damaged.
        OptionError: an override that is not allowed, or intrinsics that are needed.
    """
    folder, given = Path(folder), overrides or Overrides()
    if not folder.is_dir():
        raise InputError(str(folder), _what_instead(folder), "a folder with posed RGB-D frames")
    layout = LAYOUTS[one_of("--layout", given.layout, LAYOUTS)] if given.layout else guess_layout(folder)
    found = layout.read(folder, given)
    frames = [marked(frame) for frame in found.frames[:: given.every]]
    if not any(not frame.lost for frame in frames):
        reasons = "; ".join(f"{frame.name}: {frame.lost}" for frame in frames[:3])
        raise InputError(str(folder), f"no usable frame among {len(frames)} ({reasons})", layout.needs)
    notes = list(found.notes)
    depth_size, colour_size = _sizes(frames, found)
    camera, colour = _intrinsics(found, given, depth_size)
    if camera.size and camera.size != depth_size:
        notes.append(f"intrinsics of {camera.size[0]} x {camera.size[1]} pictures were resized to the depth maps'")
    depth_camera = camera.camera(*depth_size)
    colour_camera = colour.camera(*colour_size) if colour else depth_camera.of_size(*colour_size)
    return Recording(
        folder,
        layout.name,
        tuple(frames),
        depth_camera,
        colour_camera,
        given.depth_scale or found.depth_scale,
        given.pose_convention or found.convention,
        given.pose_direction or found.direction,
        given.pose_scale or 1.0,
        camera.size or depth_size,
        tuple(notes),
    )


def guess_layout(folder: Path) -> Layout:
    """The layout that a folder's content looks like.

    Raises:
        InputError: none, or more than one.
    """
    fitting = [layout for layout in LAYOUTS.values() if layout.looks(folder)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = either(layout.name for layout in fitting)
        raise InputError(str(folder), f"it may be {names}", "say which with --layout")
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    hint = next((f"; {path.name}/ in it looks like one: name that folder" for path in inside if _fits(path)), "")
    there = ", ".join(sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())[:8]) or "nothing"
    bags = any(path.suffix == ".bag" for path in folder.iterdir())
    hint += "; a .bag is unpacked with Open3D's RGBDVideoReader (save_frames)" if bags else ""
    known = "; ".join(f"{layout.name} ({layout.needs})" for layout in LAYOUTS.values())
    raise InputError(str(folder), f"no known layout (there is {there}){hint}", known)


def _fits(folder: Path) -> bool:
    return any(layout.looks(folder) for layout in LAYOUTS.values())


def _what_instead(path: Path) -> str:
    if path.suffix.lower() == ".r3d":
        return "a packed Record3D recording: unzip it (an .r3d is a zip), and name the folder"
    if path.suffix.lower() == ".bag":
        return "a packed RealSense recording: unpack it with Open3D's RGBDVideoReader (save_frames), and name the folder"
    return "a file, not a folder" if path.exists() else "no such folder"


def _sizes(frames: list[Frame], found: Found) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of depth maps and colour pictures, of the first frame that can be read.

    Raises:
        InputError: none can be read; the first reason is given.
    """
    reasons: list[InputError] = []
    for frame in [frame for frame in frames if not frame.lost][:20]:
        assert frame.depth is not None and frame.colour is not None
        try:
            depth, colour = read_stored_depth(frame.depth, found.depth_size), read_colour(frame.colour)
        except InputError as error:
            reasons.append(error)
            continue
        return (depth.shape[1], depth.shape[0]), (colour.shape[1], colour.shape[0])
    raise reasons[0]


def _intrinsics(found: Found, given: Overrides, depth_size: tuple[int, int]) -> tuple[Intrinsics, Intrinsics | None]:
    """Intrinsics of the depth maps, and of the colour pictures where they have their own; the user's word counts for both.

    Raises:
        OptionError: neither files nor user give any.
    """
    camera, colour = found.camera, found.colour
    if given.intrinsics is not None:
        fx, fy, cx, cy = given.intrinsics
        camera, colour = Intrinsics(fx, fy, cx, cy, depth_size), None
    if given.intrinsics_size is not None and camera is not None:
        width, height = given.intrinsics_size
        camera, colour = replace(camera, size=(int(width), int(height))), None
    if camera is None:
        raise OptionError(
            f"the intrinsics are not known ({depth_size[0]} x {depth_size[1]} depth maps): give --intrinsics FX,FY,CX,CY, and "
            f"--intrinsics-size WIDTHxHEIGHT where they belong to pictures of another size"
        )
    return camera, colour

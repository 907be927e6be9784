"""Which channel of an OpenEXR file is depth: renders hold many whose last letter is Z."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from vitlens.errors import MissingDependencyError
from vitlens.modalities.pixel_maps import check_size
from vitlens.sources import Source, utf8_path

# Passes that hold a vector, a colour or an index, never a distance.
_OTHER = re.compile(
    r"normal|denois|position|vector|motion|velocity|speed|albedo|colou?r|crypto|shadow|mist|\buv\b", re.IGNORECASE
)
_DISTANCE = re.compile(r"^(depth|z|distance|zdepth)$", re.I)


def read_exr(path: Path, source: Source, key: str | None) -> np.ndarray:
    """The channel `key`, or the one that holds depth, as stored [h, w].

    Raises:
        InputError: damaged, no such channel, or not exactly one that may be depth.
        MissingDependencyError: OpenEXR is not installed.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingDependencyError("reading .exr needs OpenEXR: pip install OpenEXR") from error
    with utf8_path(path) as there, OpenEXR.File(there, separate_channels=True, header_only=True) as file:
        low, high = file.header()["dataWindow"]
        height, width = int(high[1]) - int(low[1]) + 1, int(high[0]) - int(low[0]) + 1
        check_size(height, width, source)
        source.needs(
            4 * height * width * max(1, len(file.header().get("channels", ()))), f"a picture of {width} x {height} pixels"
        )
    with utf8_path(path) as there, OpenEXR.File(there, separate_channels=True) as file:
        if not file.parts:
            raise source.refuse("damaged or cut off")
        channels: dict[str, np.ndarray] = {}
        for part in range(len(file.parts)):
            prefix = f"{file.parts[part].name()}." if len(file.parts) > 1 else ""
            own = {f"{prefix}{name}": np.array(channel.pixels) for name, channel in file.channels(part).items()}
            channels |= own
    chosen = key if key is not None else _depth_channel(list(channels), source)
    if chosen not in channels:
        raise source.refuse(f"no channel {key!r} (it holds {', '.join(channels)})", "say which channel with key=")
    return channels[chosen]


def _depth_channel(names: Collection[str], source: Source) -> str:
    """The only channel that may be depth.

    Raises:
        InputError: none or several, which are listed.
    """
    candidates = depth_channels(names)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        found = f"{len(candidates)} channels that may be depth ({', '.join(candidates)})"
    else:
        found = f"{len(names)} channels and none that is depth ({', '.join(names)})"
    raise source.refuse(found, "say which channel with key=")


def depth_channels(names: Collection[str]) -> list[str]:
    """The names that may stand for depth: a Z or depth of its own, the value of a pass called Depth, a lone grey channel.

    A Z beside an X and a Y of the same pass is the third part of a vector.
    """
    found = []
    for name in names:
        layer, _, leaf = name.rpartition(".")
        passes = layer.rpartition(".")[2]
        vector = {f"{layer}.{axis}".lstrip(".") for axis in "XY"} <= set(names)
        if vector or _OTHER.search(layer) or passes in ("P", "N"):
            continue
        if _DISTANCE.match(leaf) or (leaf.upper() in ("V", "Y", "R", "GRAY", "GREY") and _DISTANCE.match(passes)):
            found.append(name)
    if not found and len(names) == 1:
        (name,) = names
        grey = name.rpartition(".")[2].upper() in ("Y", "V", "R", "L", "GRAY", "GREY", "VALUE")
        found = [name] if grey and not _OTHER.search(name) else []
    if not found and "Y" in names and not {"RY", "BY", "X"} & set(names):  # brightness, beside an alpha or the like
        found = ["Y"]
    return found

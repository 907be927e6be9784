"""Which files belong to a file because it names them: a recording's data, a mesh's materials and their pictures."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from urllib.parse import unquote

from vitlens.sources import suffix_of

_NAMES = {
    "vhdr": rb"(?i)^(?:DataFile|MarkerFile)[ \t]*=[ \t]*(.*?)\s*$",
    "obj": rb"^\s*mtllib\s+(.*?)\s*$",
    "mtl": rb"^\s*map_Kd\s+(.*?)\s*$",
    "gltf": rb'"uri"\s*:\s*"((?!data:)[^"]*)"',
}
"""Where a file of this type names another one."""
_LONGEST = 1000


def companions(path: Path) -> list[Path]:
    """The files that are there of those that `path` names, that they name in turn, or that its format lays beside it.

    None outside its folder: whoever made the file may not say what else of this machine is read, hashed or served.
    """
    stem = path.stem
    laid = {"set": [f"{stem}.fdt"], "fif": sorted(other.name for other in path.parent.glob(f"{glob.escape(stem)}-*.fif"))}
    found = [path.with_name(name) for name in laid.get(suffix_of(path), ()) if path.with_name(name).is_file()]
    waiting = [path]
    while waiting:
        file = waiting.pop()
        others = [other for other in _named_in(file) if other not in found and other != path and inside(path.parent, other)]
        found += others
        waiting += others
    return found


def _named_in(file: Path) -> list[Path]:
    pattern = _NAMES.get(suffix_of(file))
    if pattern is None or not file.is_file():
        return []
    found: list[Path] = []
    for name in re.findall(pattern, file.read_bytes(), re.MULTILINE):
        text = unquote(os.fsdecode(name)).replace("$b", file.stem).replace("\\", "/")
        for part in dict.fromkeys((text, text.split(" ")[-1])):  # a picture's name may stand behind options
            if part and len(part) < _LONGEST and (there := beside(file.parent, part)).is_file():
                found.append(there)
    return list(dict.fromkeys(found))


def beside(folder: Path, name: str) -> Path:
    """The file `name` of a folder, whatever the case of its letters on this disk; as it is written where there is none."""
    if os.path.isfile(folder / name) or "/" in name:
        return folder / name
    return next((other for other in folder.iterdir() if other.name.lower() == name.lower()), folder / name)


def inside(folder: Path, file: Path) -> bool:
    """Whether a path stays in `folder` (links in it may lead anywhere: they were put there)."""
    root, full = (os.path.normpath(os.path.abspath(path)) for path in (folder, file))
    return full.startswith(root.rstrip(os.sep) + os.sep)

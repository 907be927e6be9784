"""The house: no circle of files, imports that only go down, and commands that start without torch.

Imports inside functions, under TYPE_CHECKING, by `import_module` and by "package.module:name" count; the links to the three top
folders are resolved.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.repository import FILES, ROOT, imports

# Room -> the rooms right below it; it may import them and whatever is below them.
BELOW = {
    "ground": [],
    "parts": ["ground"],
    "modalities": ["parts"],
    "display": ["parts"],
    "model": ["display"],
    "store": ["model"],
    "train": ["store"],
    "imagebind": ["store"],
    "export": ["store"],
    "index": ["store"],
    "scene": ["index"],
    "adapters": ["modalities", "train", "imagebind", "scene"],
    "benchmarks": ["adapters"],
    "serve": ["benchmarks"],
    "cli": ["serve", "export"],
}
# The files right in vitlens/ by their room; those not named here belong to the model. A folder that is not named here is a
# room of its own name.
FLAT = {
    "ground": ["errors", "checks", "sources", "disk", "space", "processes", "devices", "hub", "facts", "isolation", "libraries"],
    "parts": ["modality", "read_options", "embed", "lens", "lens_config", "vit", "vit_blocks"],
    "model": ["cards"],
    "cli": ["__main__"],
}
ROOM = {name: room for room, names in FLAT.items() for name in names}
# Slow to import, or absent from a small installation: never loaded by importing a module below the adapters.
HEAVY = {"open3d", "mne", "transformers", "diffusers", "matplotlib", "av", "pandas"}
# What starts without torch.
LIGHT = ["vitlens", "vitlens.cli.app", "vitlens.cli.inputs", "vitlens.store.manifest"]


def room_of(module: str) -> str:
    """The room of `vitlens` (its public names: the model) or of a dotted name below it."""
    name = module.partition(".")[2].partition(".")[0]
    folder = "." in module.partition(".")[2] or is_package(module)
    return ROOM.get(name) or (name if folder and name else "model")


def rooms_below(room: str) -> set[str]:
    """All rooms that `room` may import, itself too."""
    return {room}.union(*(rooms_below(other) for other in BELOW[room]))


def imported_files(source: str, module: str, *, package: bool = False) -> set[str]:
    """The modules of this package that `source`, the text of `module`, imports: files, or `vitlens` for its public names."""
    found = set()
    for name in imports(ast.parse(source), module, package=package):
        while name and name not in FILES:
            name = name.rpartition(".")[0]
        found |= {name} - {"", module}
    return found


def wrong_imports(source: str, module: str, *, package: bool = False) -> list[str]:
    """The imports of `source`, the text of `module`, that go up or to the side."""
    allowed = rooms_below(room_of(module))
    return sorted(name for name in imported_files(source, module, package=package) if room_of(name) not in allowed)


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of the graph, its first file again at the end; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def imported_at_once(tree: ast.AST) -> Iterator[str]:
    """Top-level names of what loads while the module itself does: not in functions, not for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imported_at_once(ast.Module(node.orelse, []))
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        yield from imported_at_once(node)


def text_of(module: str) -> str:
    return FILES[module].read_text(encoding="utf-8")


def is_package(module: str) -> bool:
    return module in FILES and FILES[module].name == "__init__.py"


# --- the house as it stands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_only_rooms_below_its_own(module: str) -> None:
    room = room_of(module)
    assert room in BELOW, f"{module}: no room of this name; give it its place in BELOW"
    found = wrong_imports(text_of(module), module, package=is_package(module))
    assert not found, f"{module} is in the room {room}, below which are {sorted(rooms_below(room))}; it imports {found}"


def test_no_files_import_each_other_in_a_circle() -> None:
    circle = circle_in({module: imported_files(text_of(module), module, package=is_package(module)) for module in FILES})
    assert not circle, " -> ".join(circle)


@pytest.mark.parametrize("module", [module for module in FILES if not {"adapters", "benchmarks"} & {room_of(module)}])
def test_heavy_libraries_are_imported_where_they_are_used(module: str) -> None:
    found = HEAVY & set(imported_at_once(ast.parse(text_of(module))))
    assert not found, f"{module} imports {sorted(found)} at its top: move that into the function that needs it"


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_command_starts_with_loads_no_torch(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert module in loaded
    assert not {"torch", "torchvision"} & loaded


@pytest.mark.parametrize("arguments", [["--help"], ["embed", "--help"], ["embed", "a.wav", "b.png", "--dry-run"]])
def test_what_a_command_says_without_a_model_loads_no_torch(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    command = [sys.executable, "-X", "importtime", "-m", "vitlens", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "embed" in done.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


# --- the rules themselves --------------------------------------------------------------------------------------------


def test_the_rooms_stand_on_the_ground() -> None:
    assert all("ground" in rooms_below(room) for room in BELOW)
    assert set(BELOW) <= {room_of(module) for module in FILES}
    assert [name for room in FLAT for name in FLAT[room] if f"vitlens.{name}" not in FILES] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vitlens.vit", "from vitlens.modalities.audio import Audio"),
        ("vitlens.vit", "from vitlens import modalities"),
        ("vitlens.vit", "def f():\n    import vitlens.cli.app"),
        ("vitlens.vit", "if TYPE_CHECKING:\n    from vitlens import load"),
        ("vitlens.store.files", "HOME = 'vitlens.cli.app:main'"),
        ("vitlens.train.loop", "from ..adapters import splice"),
        ("vitlens.train.loop", "from vitlens.imagebind import data"),
        ("vitlens.zoo", "import_module('vitlens.benchmarks')"),
        ("vitlens.modalities.audio", "from vitlens.zoo import load"),
        ("vitlens.adapters.chat.instructblip", "from vitlens.benchmarks import speed"),
        ("vitlens.benchmarks.speed", "from vitlens import cli"),
    ],
)
def test_the_rule_finds_a_wrong_import(module: str, source: str) -> None:
    assert wrong_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vitlens.vit", "from vitlens.errors import InputError\nimport torch"),
        ("vitlens.modalities.video", "from vitlens.modalities.image import Image\nfrom vitlens.modality import Sample"),
        ("vitlens.benchmarks.speed", "from vitlens.modalities import audio\nfrom vitlens import load"),
        ("vitlens.cli.app", "COMMANDS = 'vitlens.benchmarks.speed:app'"),
    ],
)
def test_the_rule_lets_a_right_import_pass(module: str, source: str) -> None:
    assert wrong_imports(source, module) == []


def test_a_circle_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_imports_in_functions_and_for_type_checkers_are_not_at_once() -> None:
    source = "if TYPE_CHECKING:\n    import av\nelse:\n    import mne\ndef f():\n    import pandas\nclass C:\n    import open3d\n"
    assert set(imported_at_once(ast.parse(source))) == {"mne", "open3d"}


def test_the_map_of_the_house_shows_what_there_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = {name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name}
    assert [name for name in sorted(paths) if not (ROOT / name).exists()] == []
    rooms = {name.split(".")[1] for name in FILES if name.count(".") == 1 and name != "vitlens.__main__"}
    assert [room for room in sorted(rooms) if not re.search(rf"\b{room}\b", text)] == []

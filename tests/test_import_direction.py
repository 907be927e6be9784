"""Who may import whom: core <- modalities <- adapters <- benchmarks <- vitlens.cli; and heavy libraries where they are used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository import FILES, FOLDERS, imports

# Room -> the rooms it may import, itself aside. `api` is what the core shows to all: `vitlens` itself and its errors.
ALLOWED = {
    "api": set(),
    "core": {"api"},
    "serve": {"api"},
    "index": {"api"},
    "modalities": {"api", "core"},
    "adapters": {"api", "core", "modalities"},
    "benchmarks": {"api", "core", "modalities", "adapters"},
    "cli": {"api", "core", "modalities", "adapters", "benchmarks", "serve", "index"},
}
# Slow to import, or absent from a small installation: never loaded by importing a module of the core or of a modality.
HEAVY = {"open3d", "mne", "transformers", "diffusers", "matplotlib", "av", "pandas"}


def room_of(module: str) -> str:
    """The room in which `module`, `vitlens` or a dotted name below it, lives; a folder without a rule belongs to the core."""
    if module in ("vitlens", "vitlens.errors"):
        return "api"
    part = module.split(".")[1]
    if part in ("cli", "__main__"):
        return "cli"
    return part if part in ALLOWED else "core"


def forbidden_imports(source: str, module: str, *, package: bool = False) -> list[str]:
    """The imports of `source`, the text of `module`, that its room may not make."""
    allowed = ALLOWED[room_of(module)] | {room_of(module)}
    if module == "vitlens":
        allowed = allowed | {"core"}  # where its public names come from
    names = {name for name in imports(ast.parse(source), module, package=package) if name.split(".")[0] == "vitlens"}
    return sorted(name for name in names if room_of(name) not in allowed)


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


def test_every_folder_is_looked_at() -> None:
    assert {"vitlens", "vitlens.vit", "vitlens.modalities.image"} <= set(FILES)
    assert {"api", "core", *FOLDERS} <= {room_of(module) for module in FILES}


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_rooms_below_its_own(module: str) -> None:
    found = forbidden_imports(text_of(module), module, package=FILES[module].name == "__init__.py")
    room = room_of(module)
    assert not found, f"{module} is in the room {room}, which may import {sorted(ALLOWED[room])}, not {found}"


@pytest.mark.parametrize("module", [module for module in FILES if room_of(module) not in ("adapters", "benchmarks")])
def test_heavy_libraries_are_imported_where_they_are_used(module: str) -> None:
    found = HEAVY & set(imported_at_once(ast.parse(text_of(module))))
    assert not found, f"{module} imports {sorted(found)} at its top: move that into the function that needs it"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vitlens.vit", "from vitlens.modalities.audio import Audio"),
        ("vitlens.vit", "from vitlens import modalities"),
        ("vitlens.vit", "def f():\n    import vitlens.cli.app"),
        ("vitlens.train.loop", "from ..adapters import instructblip"),
        ("vitlens.zoo", "import_module('vitlens.benchmarks')"),
        ("vitlens.modalities.audio", "from vitlens.adapters import instructblip"),
        ("vitlens.adapters.chat.instructblip", "from vitlens.benchmarks import speed"),
        ("vitlens.benchmarks.speed", "from vitlens import cli"),
        ("vitlens.serve.app", "from vitlens.zoo import load"),
        ("vitlens.index.store", "from vitlens.serve.app import App"),
    ],
)
def test_the_rule_finds_a_wrong_import(module: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "vitlens.cli.app", Path("cli.py"))
    assert forbidden_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vitlens.vit", "from vitlens.errors import InputError"),
        ("vitlens.modalities.video", "from vitlens.modalities.image import Image\nfrom vitlens.modality import Sample"),
        ("vitlens.benchmarks.speed", "from vitlens.modalities import audio"),
        ("vitlens.serve.app", "from vitlens import load\nfrom . import page"),
        ("vitlens.cli.app", "from vitlens.benchmarks import speed"),
    ],
)
def test_the_rule_lets_a_right_import_pass(module: str, source: str) -> None:
    assert forbidden_imports(source, module) == []


def test_imports_in_functions_and_for_type_checkers_are_not_at_once() -> None:
    source = "if TYPE_CHECKING:\n    import av\nelse:\n    import mne\ndef f():\n    import pandas\nclass C:\n    import open3d\n"
    assert set(imported_at_once(ast.parse(source))) == {"mne", "open3d"}

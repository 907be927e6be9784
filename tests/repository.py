"""The repository's own files, as the tests of packaging and of import directions see them."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("modalities", "adapters", "benchmarks")
"""The code folders beside `vitlens/`, linked into it."""


def _code_files() -> dict[str, Path]:
    found = {}
    for top in ("vitlens", *FOLDERS):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[0] == "vitlens" and parts[1] in FOLDERS:
                continue  # seen through a link
            name = ".".join(parts if parts[0] == "vitlens" else ("vitlens", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


FILES = _code_files()
"""Installed module name -> file, of all code of the package."""


TARGET = re.compile(r"vitlens(\.\w+)*:\w+")
"""What `pkgutil.resolve_name` and entry points take."""


def tracked_files() -> list[Path]:
    """Files that are committed or would be; links and deleted files left out. Skips the test outside a git checkout."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: run the tests in a clone")
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def imports(tree: ast.AST, module: str, *, package: bool = False) -> Iterator[str]:
    """Dotted names imported anywhere in `tree`, the code of `module`; `package` says that it is an `__init__.py`.

    Relative imports are resolved; `import_module` with a constant and texts such as "vitlens.zoo:load" count.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(part for part in (_anchor(node.level, module, package), node.module) if part)
            # `from vitlens import vit` imports a module, `from vitlens import load` a name of one.
            yield from (f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and TARGET.fullmatch(node.value):
            yield node.value.partition(":")[0]


def _anchor(level: int, module: str, package: bool) -> str:
    """The package that `level` leading dots stand for."""
    parts = module.split(".")
    return ".".join(parts[: len(parts) + package - level]) if level else ""


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))

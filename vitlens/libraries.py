"""Libraries that need more than an import statement, and those that only an extra of this package brings."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import TracebackType
from typing import Any

from vitlens.errors import MissingDependencyError

PACKAGES = {
    "faiss": "faiss-cpu",
    "google": "protobuf",
    "lance": "pylance",
    "multipart": "python-multipart",
    "sklearn": "scikit-learn",
}
"""Libraries that pip knows by another name than Python does."""
OURS = ("test", "dev", "docs")
"""Extras for those who work on this package."""


def check_installed(what: str, modules: Sequence[str], extra: str) -> None:
    """Ask for libraries without importing them, before anything that takes long.

    Raises:
        MissingDependencyError: some of `modules`, which `what` needs and `extra` brings, are not installed.
    """
    missing = [PACKAGES.get(module, module) for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingDependencyError(f"{what} needs {', '.join(missing)}: pip install 'vitlens[{extra}]'")


def load_open3d() -> Any:
    """Import open3d, which takes seconds. On Linux it needs libusb: without the system's, the `libusb-package` wheel's is used.

    Raises:
        MissingDependencyError: open3d, or on Linux libusb-package, is not installed.
    """
    try:
        if sys.platform == "linux":
            try:
                ctypes.CDLL("libusb-1.0.so.0")
            except OSError:
                import libusb_package

                ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
        import open3d
    except ModuleNotFoundError as error:
        advice = "pip install 'vitlens[toybox]'"
        raise MissingDependencyError(f"open3d, which draws the Toybox, cannot be imported ({error}): {advice}") from error
    return open3d


def load_clip_tokenizer() -> Any:
    """open_clip's file of tokenizers. The rest of open_clip, which takes seconds to import, is left out where that can be."""
    found = importlib.util.find_spec("open_clip") if "open_clip" not in sys.modules else None
    file = Path(found.origin).with_name("tokenizer.py") if found and found.origin else None
    spec = importlib.util.spec_from_file_location("open_clip.tokenizer", file) if file and file.is_file() else None
    if spec is None or spec.loader is None:
        return importlib.import_module("open_clip.tokenizer")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError:  # a file that leans on its package
        return importlib.import_module("open_clip.tokenizer")
    return module


@cache
def extras() -> dict[str, frozenset[str]]:
    """Extra -> the packages it brings on this machine, as this package's metadata has them; the smallest first.

    Left out are those that are sums of others ("all"), and those for working on this package.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, set[str]] = {}
    try:
        required = [Requirement(line) for line in requires("vitlens") or ()]
    except PackageNotFoundError:
        return {}
    for one in required:
        for extra in re.findall(r"extra == ['\"]([^'\"]+)", str(one.marker or "")):
            if one.marker is not None and one.marker.evaluate({"extra": extra}):
                found.setdefault(extra, set()).add(canonicalize_name(one.name))
    core = {canonicalize_name(one.name) for one in required if one.marker is None or one.marker.evaluate({"extra": ""})}
    brought = {extra: frozenset(packages - core) for extra, packages in found.items() if extra not in OURS and packages - core}
    sums = {extra for extra, packages in brought.items() if sum(other < packages for other in brought.values()) > 1}
    return {extra: brought[extra] for extra in sorted(brought, key=lambda extra: len(brought[extra])) if extra not in sums}


def of_an_extra(error: ImportError) -> MissingDependencyError | None:
    """What to say of a library that cannot be imported and that an extra brings; None where none does.

    Several may bring it: then it is the one whose name the importing code bears (`vitlens.train` needs `train`), else the one
    that brings most.
    """
    from packaging.utils import canonicalize_name

    names = [error.name.partition(".")[0]] if error.name else re.findall(r"\w[\w-]*", str(error))
    places = _rooms(error.__traceback__)
    for name in names:
        package = canonicalize_name(PACKAGES.get(name, name))
        able = [extra for extra, packages in extras().items() if package in packages]
        if able:
            extra = next((extra for extra in able if any(place.startswith(extra) for place in places)), able[-1])
            return MissingDependencyError(f"this needs {package} ({_short(error)}): pip install 'vitlens[{extra}]'")
    return None


def _short(error: ImportError) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "it cannot be imported"


def _rooms(traceback: TracebackType | None) -> set[str]:
    """The parts of the names of this package's modules that a traceback goes through."""
    rooms: set[str] = set()
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        if name.startswith("vitlens."):
            rooms.update(name.split(".")[1:])
        traceback = traceback.tb_next
    return rooms


@contextmanager
def pip_line() -> Iterator[None]:
    """Within it, and in a function that it decorates, a library that only an extra brings is told with its pip line.

    Raises:
        MissingDependencyError: instead of the ImportError.
    """
    try:
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        told = of_an_extra(error)
        if told is None:
            raise
        raise told from error

"""The installed package: what is in it, what importing it costs, what it needs; and what must not get into the repository."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, entry_points, files, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import vitlens
from tests.repository import FILES, FOLDERS, ROOT, imports, tracked_files

MODALITIES = {"image", "text", "video", "point_cloud", "depth", "audio", "tactile", "eeg", "thermal", "imu", "pressure"}
SENSOR_LIBRARIES = "open3d mne transformers matplotlib pandas av"
REPOSITORY_LIMIT = 64 * 2**20


def new_python(code: str, cwd: Path, *flags: str) -> str:
    """What `code` prints in a new interpreter, started in `cwd` without the current folder on its path."""
    done = subprocess.run([sys.executable, "-I", *flags, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this work tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


# --- the package -----------------------------------------------------------------------------------------------------


def test_the_version_is_the_installed_one() -> None:
    assert vitlens.__version__ == version("vitlens")


def test_type_checkers_see_the_annotations() -> None:
    assert (Path(vitlens.__file__).parent / "py.typed").is_file()


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in vitlens.__all__ if not hasattr(vitlens, name)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_folders_are_linked_into_the_package(folder: str) -> None:
    link = ROOT / "vitlens" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
    assert importlib.import_module(f"vitlens.{folder}").__name__ == f"vitlens.{folder}"


def test_the_modalities_are_entry_points() -> None:
    ours = [point for point in entry_points(group="vitlens.modalities") if point.value.startswith("vitlens.modalities.")]
    assert {point.name: point.load().name for point in ours} == {name: name for name in MODALITIES}


def test_importing_vitlens_loads_no_heavy_library(tmp_path: Path) -> None:
    heavy = f"torch timm open_clip numba {SENSOR_LIBRARIES}"
    assert new_python(f"import sys, vitlens; dir(vitlens); print(*set('{heavy}'.split()) & set(sys.modules))", tmp_path) == ""


def test_listing_models_and_modalities_loads_no_sensor_library(tmp_path: Path) -> None:
    code = "import sys, vitlens; vitlens.list_models(); print(len(vitlens.list_modalities()))\n"
    code += f"print(*set('{SENSOR_LIBRARIES}'.split()) & set(sys.modules))"
    assert new_python(code, tmp_path) == str(len(MODALITIES))


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names if name.endswith(".py")}
    assert modules == set(FILES)
    assert {name.split("/")[0] for name in names} == {"vitlens", f"vitlens-{version('vitlens')}.dist-info"}
    assert [name for name in names if "__pycache__" in name] == []
    assert "vitlens/py.typed" in names


def test_the_wheel_holds_the_cards(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = [path.relative_to(ROOT).as_posix() for path in tracked_files() if path.suffix == ".yaml"]
    folders = (*(f"{folder}/" for folder in FOLDERS), "vitlens/")
    cards = [name if name.startswith("vitlens/") else f"vitlens/{name}" for name in tracked if name.startswith(folders)]
    assert {"vitlens/cards/1-vitlens-l.yaml", "vitlens/adapters/generate/cards/1-image.yaml"} <= set(cards) <= names


def test_the_wheel_makes_no_bare_name_importable(wheel: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
    code += "from importlib.util import find_spec; import vitlens.modalities; assert '.whl' in vitlens.modalities.__file__\n"
    code += f"print(*(name for name in {FOLDERS} if find_spec(name)))"
    # -S leaves site-packages out: an editable installation there puts the repository on the path, and so the bare names.
    assert new_python(code, tmp_path, "-S") == ""


# --- the dependencies ------------------------------------------------------------------------------------------------


def declared() -> set[str]:
    """The distributions that pyproject.toml asks for, whatever the extra or the system."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return set(re.findall(r'"([a-z0-9-]+)(?:\[[a-z]+\])?>=', text))


def pinned() -> dict[str, list[str]]:
    """Distribution -> its versions in constraints.txt, one for each marker."""
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, pin = line.split(";")[0].strip().split("==")
            pins.setdefault(name, []).append(pin)
    return pins


def importable(distribution: str) -> set[str]:
    """The top-level names that `distribution` brings; its own name where it is not installed."""
    try:
        tops = {path.parts[0] for path in files(distribution) or ()}
    except PackageNotFoundError:
        return {distribution.replace("-", "_")}
    return {top.split(".")[0] for top in tops}


@pytest.fixture(scope="module")
def requirements(wheel: Path) -> list[Requirement]:
    """What the wheel asks for."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(name).decode().splitlines()
    return [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]


def asked_for(requirements: list[Requirement], extra: str = "", **system: str) -> set[str]:
    """The distributions that pip installs on a system, for nothing or for an extra."""
    place = {
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_release": "6.8.0",
        "python_version": "3.11",
        **system,
    }
    return {r.name for r in requirements if r.marker is None or r.marker.evaluate({**place, "extra": extra})}


def test_a_torch_that_is_there_stays(requirements: list[Requirement]) -> None:
    (torch,) = (r for r in requirements if r.name == "torch" and r.marker is None)
    assert all(torch.specifier.contains(there) for there in ("2.8.0", "2.11.0", "2.15.0+cu132", "2.99"))
    assert not torch.specifier.contains("2.7.1")
    assert "torchaudio" not in asked_for(requirements)
    assert "torchaudio" in asked_for(requirements, "torchaudio")
    assert {"torchaudio", "transformers"} <= asked_for(requirements, "all")
    assert "torchaudio" not in asked_for(requirements, "any-torch")


@pytest.mark.parametrize(
    ("system", "there"),
    [
        ({}, "open3d-cpu"),
        ({"python_version": "3.10"}, "open3d-cpu"),
        ({"python_version": "3.12"}, "open3d-cpu"),
        ({"python_version": "3.13"}, None),
        ({"platform_release": "4.18.0-553.el8_10.x86_64"}, None),
        ({"platform_machine": "aarch64"}, None),
        ({"sys_platform": "darwin", "platform_machine": "arm64", "python_version": "3.14"}, "open3d"),
        ({"sys_platform": "darwin", "platform_machine": "x86_64"}, None),
        ({"sys_platform": "win32", "platform_machine": "AMD64", "python_version": "3.14"}, "open3d"),
        ({"sys_platform": "win32", "platform_machine": "ARM64"}, None),
    ],
)
def test_open3d_is_asked_for_where_a_wheel_of_it_exists(
    system: dict[str, str], there: str | None, requirements: list[Requirement]
) -> None:
    found = {name for name in asked_for(requirements, **system) if name.startswith("open3d")}
    assert found == ({there} if there else set())
    assert {name for name in asked_for(requirements, "toybox", **system) if name.startswith("open3d")}


def test_the_classifiers_name_the_pythons_of_the_readme() -> None:
    served = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert served == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert "3.10 - 3.14" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_imported_library_is_a_declared_dependency() -> None:
    known = sys.stdlib_module_names | {"vitlens"} | set().union(*map(importable, declared()))
    undeclared: dict[str, list[str]] = {}
    for module, path in FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name in {name.split(".")[0] for name in imports(tree, module, package=path.name == "__init__.py")} - known:
            undeclared.setdefault(name, []).append(module)
    assert not undeclared, f"imported, but not in pyproject.toml: {undeclared}"


def test_the_constraints_pin_what_is_declared() -> None:
    missing = sorted(declared() - set(pinned()))
    assert not missing, f"not in constraints.txt: {missing}; run `make constraints`"


def test_the_constraints_pin_one_torch_with_its_own_torchvision_and_torchaudio() -> None:
    pins = [pinned()[name] for name in ("torch", "torchvision", "torchaudio")]
    (torch,), (vision,), (audio,) = ([tuple(int(part) for part in pin.split(".")[:2]) for pin in versions] for versions in pins)
    assert audio == torch
    assert vision == (0, torch[1] + 15), "torchvision 0.(n + 15) is the one built for torch 2.n"


# --- the repository --------------------------------------------------------------------------------------------------


def lines_matching(pattern: str, suffixes: set[str] | None = None) -> list[str]:
    """`file:line` of every line of a tracked text file in which `pattern` is found."""
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data or (suffixes is not None and path.suffix not in suffixes):
            continue
        lines = data.decode("utf-8", errors="replace").splitlines()
        found += [f"{path.relative_to(ROOT)}:{number}" for number, line in enumerate(lines, 1) if re.search(pattern, line)]
    return found


def test_no_code_imports_the_folders_by_their_bare_names() -> None:
    assert lines_matching(rf"^\s*(from|import)\s+({'|'.join(FOLDERS)})(\.|\s|$)", {".py", ".md", ".ipynb"}) == []


def test_no_package_registry_is_named() -> None:
    assert lines_matching(r"pypi[.]o|python[h]osted|npm[j]s[.]|[.]debian[.]|download[.]pytorch") == []


def test_no_path_of_one_machine_is_named() -> None:
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".sh", ""}
    assert lines_matching(r"(^|[^A-Za-z0-9_.])/(tmp|work|root|farm|home|Users)/\w", suffixes) == []


def test_the_repository_stays_small() -> None:
    assert sum(path.stat().st_size for path in tracked_files()) < REPOSITORY_LIMIT

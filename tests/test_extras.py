"""Without extras: every command of the README and the docs runs, or says the pip line after which it goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.repository import FILES, ROOT
from vitlens import libraries
from vitlens.benchmarks.toybox.sensors.make import make_toybox
from vitlens.errors import MissingDependencyError
from vitlens.libraries import PACKAGES, extras, of_an_extra, pip_line

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs each command in a fork: Linux or macOS")

LONG = ("vitlens demo", "vitlens toybox", "vitlens serve", "vitlens scene build", "vitlens eval toybox")
"""Commands that take minutes, or never end."""
BESIDE = ("vitlens imagine --model vitlens-toybox --audio waves.wav --out beach.png",)
"""Commands to try beside the documented ones."""
PIP_LINE = re.compile(r"pip install 'vitlens\[([\w-]+)\]'")
STAND_INS = {".wav": "audio", ".flac": "audio", ".mp3": "audio", ".jpg": "image", ".png": "image", ".ply": "point_cloud"}
"""Files of the docs' commands -> what stands for them, of the Toybox."""


def documented(page: Path) -> list[str]:
    """Every `vitlens ...` line of a page's shell blocks, once, but for those that take long."""
    lines: dict[str, None] = {}
    for block in re.findall(r"```(?:bash|console|sh)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("vitlens ") and not line.startswith(LONG):
                lines[line.partition("  #")[0].strip()] = None
    return list(lines)


FIRST = [*documented(ROOT / "README.md"), *BESIDE]
OTHERS = [line for page in sorted((ROOT / "docs").glob("*.md")) for line in documented(page) if line not in FIRST]


def stand_in(command: str) -> str:
    """The command with models and files that are here."""
    command = re.sub(r"\bvitlens-[lg]\b(?!-)", "vitlens-toybox", command)
    command = re.sub(r"(-m|--model) \S+/\S+", r"\1 vitlens-toybox", command)

    def file(found: re.Match[str]) -> str:
        before, name = found[1], found[2]
        kind = STAND_INS.get(Path(name).suffix)
        if kind is None or before.split()[-1] in ("-o", "--out", "--output", "--report"):
            return found[0]
        ending = {"image": "png", "audio": "wav", "point_cloud": "ply"}[kind]
        return f"{before}demo/test/{kind}/test-000000.{ending}"

    return re.sub(r"(\S+ +)'?([\w*/.-]+\.\w+)'?(?= |$)", file, command)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("there")
    make_toybox(folder / "demo", objects={"test": 2}, sensors=["image", "audio", "point_cloud"], workers=0, progress=False)
    return folder


@pytest.fixture(scope="module")
def runner(there: Path) -> Iterator[Any]:
    """(job) -> what came of it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.without_extras"], cwd=there, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None

    def run(**job: Any) -> dict[str, Any]:
        print(json.dumps(job), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())  # type: ignore[union-attr]

    yield run
    process.stdin.close()
    process.wait()


@pytest.mark.parametrize("command", [*FIRST, *(pytest.param(line, marks=pytest.mark.slow) for line in dict.fromkeys(OTHERS))])
def test_a_command_runs_or_says_the_pip_line(command: str, runner: Any) -> None:
    """From a plain `pip install vitlens` on: each pip line that is said is followed, until nothing is missing."""
    gone = list(extras())
    while True:
        found = runner(command=stand_in(command), gone=gone)
        assert not found["raised"], found["raised"]
        wanted = PIP_LINE.findall(" ".join(found["said"].split()))
        if found["code"] == 0 or not wanted:
            break
        assert wanted[0] in gone, f"{found['said']}: it is installed"
        gone.remove(wanted[0])
    assert "No module named" not in found["said"]


@pytest.mark.parametrize(
    ("command", "library", "extra"),
    [
        ("vitlens serve --model vitlens-toybox", "fastapi", "serve"),
        ("vitlens toybox train -o run", "accelerate", "train"),
        ("vitlens toybox hosts -o run", "diffusers", "mllm"),
        ("vitlens toybox eval --hosts --folder run", "diffusers", "mllm"),
    ],
)
def test_a_long_command_says_the_pip_line_first(command: str, library: str, extra: str, runner: Any, there: Path) -> None:
    found = runner(command=command, gone=[extra for extra, packages in extras().items() if library in packages])
    assert found["code"] == 2
    assert f"pip install 'vitlens[{extra}]'" in " ".join(found["said"].split())
    assert not (there / "run").exists(), "it began"


def test_every_module_is_imported_or_says_the_pip_line(runner: Any) -> None:
    """But for the rooms of the service, whose door (`vitlens.serve`) says it."""
    assert not runner(imports=[module for module in FILES if not module.startswith("vitlens.serve.")], gone=list(extras()))[
        "failed"
    ]


def test_every_library_of_an_extra_is_known_by_its_import_name() -> None:
    homes = metadata.packages_distributions()
    for extra, packages in extras().items():
        for package in set(packages) - {"open3d-cpu"}:  # `load_open3d` names the extra itself
            modules = [name for name, owners in homes.items() if package in map(canonicalize_name, owners)]
            known = [name for name in modules if canonicalize_name(PACKAGES.get(name, name)) == package]
            assert known or not modules, f"{extra}: {package} is imported as {modules}: add it to vitlens.libraries.PACKAGES"


def test_extras_are_read_from_the_metadata() -> None:
    found = extras()
    assert found["eval"] == {"h5py", "scikit-learn", "torchmetrics"}
    assert {"hf", "train", "mllm", "serve", "index"} <= found.keys()
    assert not {"all", "any-torch", "test", "dev", "docs"} & found.keys()


@pytest.mark.parametrize(
    ("error", "extra"),
    [
        (ModuleNotFoundError("No module named 'sklearn'", name="sklearn"), "eval"),
        (ModuleNotFoundError("No module named 'diffusers.utils'", name="diffusers.utils"), "mllm"),
        (ImportError("Using a `device_map` requires Accelerate: `pip install 'accelerate>=0.26.0'`"), "mllm"),
        (ModuleNotFoundError("No module named 'lance'", name="lance"), "index"),
    ],
)
def test_a_missing_library_is_told_with_its_extra(error: ImportError, extra: str) -> None:
    with pytest.raises(MissingDependencyError, match=rf"pip install 'vitlens\[{extra}\]'"), pip_line():
        raise error


@pytest.mark.parametrize(("module", "extra"), [("vitlens.train.parallel", "train"), ("vitlens.adapters.chat.host", "mllm")])
def test_the_importing_code_says_which_extra_of_several(module: str, extra: str) -> None:
    with pytest.raises(MissingDependencyError, match=rf"vitlens\[{extra}\]"), pip_line():
        exec("raise ModuleNotFoundError('No module named accelerate', name='accelerate')", {"__name__": module})


def test_other_missing_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError, match="antigravitas"), pip_line():
        raise ModuleNotFoundError("No module named 'antigravitas'", name="antigravitas")
    with pytest.raises(MissingDependencyError, match=r"^pip install it$"), pip_line():
        raise MissingDependencyError("pip install it")
    monkeypatch.setattr(libraries, "extras", dict)
    assert of_an_extra(ModuleNotFoundError("No module named 'sklearn'", name="sklearn")) is None

"""A release, without releasing: builds what would be uploaded, checks it, and prints what the changelog would say.

    make release

The version stands in pyproject.toml and nowhere else. Nothing is uploaded, tagged or changed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("modalities", "adapters", "benchmarks")
MACHINE = re.compile(rb"/(?:root|home/[a-z_][\w-]*|Users/[A-Za-z][\w-]*|work|tmp/pytest)/[\w./-]+")
"""A path of the machine that something was built on."""


def main() -> None:
    version = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[0]
    notes = unreleased((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        for target in ("sdist", "wheel"):
            run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder)
        built = sorted(Path(folder).iterdir())
        run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built))
        faults = [fault for file in built for fault in faults_of(file, version)]
        for file in built:
            print(f"{file.name}: {file.stat().st_size / 2**20:.1f} MiB")
    if not notes:
        faults.append("CHANGELOG.md: nothing stands under Unreleased")
    if faults:
        sys.exit("\n".join(["not fit for a release:", *faults]))
    print(f"\n## {version}\n{notes}\n")
    print(f"fit for a release as {version}; nothing was uploaded, tagged or changed")


def unreleased(changelog: str) -> str:
    """The changelog's section of what is not released yet."""
    found = re.search(r"^## Unreleased\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    return found[1].rstrip() if found else ""


def faults_of(file: Path, version: str) -> Iterator[str]:
    """What is wrong with a built file."""
    if f"vitlens-{version}" not in file.name:
        yield f"{file.name}: the version is not {version}"
    members = dict(contents(file))
    top = "" if file.suffix == ".whl" else f"vitlens-{version}/"
    for folder in FOLDERS:
        home = f"vitlens/{folder}" if file.suffix == ".whl" else folder
        if not any(name.startswith(f"{top}{home}/") for name in members):
            yield f"{file.name}: {home}/ is not in it"
    if f"{top}LICENSE" not in members and not any(name.endswith("licenses/LICENSE") for name in members):
        yield f"{file.name}: no LICENSE"
    for name, content in members.items():
        if found := MACHINE.search(content):
            yield f"{file.name}: {name} names a path of a machine ({found[0].decode(errors='replace')})"


def contents(file: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a wheel or a source distribution; weights are left out."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if not name.endswith(".safetensors"))
        return
    with tarfile.open(file) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() and not member.name.endswith(".safetensors") else None
            if stream is not None:
                yield member.name, stream.read()


def run(*command: str) -> None:
    """Run a command in the repository; its failure ends the release."""
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    main()

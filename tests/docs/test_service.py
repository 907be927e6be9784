"""The lines for a service (marked so) run against one: `vitlens serve` in a process of its own, curl, and clients in Python."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import run
from tests.docs.blocks import all_blocks, commands_of
from tests.docs.world import write_world
from tests.serve.served import Served

ADDRESS = "http://127.0.0.1:8000"
BLOCKS = [block for block in all_blocks() if block.mark == "service"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a service that has an index and a language model, and a folder with the files that pages name."""
    folder = tmp_path_factory.mktemp("served")
    write_world(folder)
    index = folder / "things.index"
    run(
        "index",
        "build",
        folder / "demo" / "test" / "image",
        "-m",
        "vitlens-toybox",
        "--licence",
        "CC0",
        "-o",
        index,
        "--cache",
        folder / "cache",
    )
    options = ["--model", "vitlens-toybox", "--host-model", "vitlens-toybox", "--index", str(index)]
    with Served(*options, log=folder / "log") as service:
        yield service.ready().address, folder


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_lines_for_a_service(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = served
    monkeypatch.chdir(folder)
    assert len(BLOCKS) > 8
    faults = []
    for block in BLOCKS:
        text = block.text.replace(ADDRESS, address)
        if block.language == "python":
            exec(compile(text, str(block), "exec"), {})
            continue
        for command in commands_of(block):
            if command.words[0] != "curl":
                continue
            ask = f"curl --silent --show-error --fail-with-body {command.text.replace(ADDRESS, address).removeprefix('curl ')}"
            done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
            if done.returncode:
                faults.append(f"{block}: {command.text}: {done.stdout[-500:]} {done.stderr}")
    assert faults == []

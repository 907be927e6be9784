"""The blocks of README and docs that carry no mark run as they stand, page by page, with what ships and the Toybox's files."""

from __future__ import annotations

import glob
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from tests.docs.blocks import SHELL, Command, all_blocks, commands_of
from tests.docs.shell import PLAIN, check_command
from tests.docs.world import write_world
from vitlens import modality
from vitlens.cli.app import app

RUN = {page: [block for block in all_blocks() if block.page == page and block.runs] for page in {b.page for b in all_blocks()}}
NUMBER = re.compile(r"-?\d[\d,.]*\d|-?\d")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of `vitlens demo` (of a few objects) and those that pages name."""
    folder = tmp_path_factory.mktemp("pages")
    write_world(folder)
    return folder


def run_command(command: Command) -> str:
    """What a command prints; it ends as the page says: with 0, or with an error that the page shows."""
    check_command(command)
    words = [found for word in shlex.split(command.text, comments=True, posix=False) for found in spread(word)]
    if words[0] == "cat":  # a file that the page shows
        Path(words[1]).write_text("\n".join(command.shown) + "\n", encoding="utf-8")
    if words[0] in PLAIN:  # shows what another command left
        return "\n".join(command.shown)
    assert words[0] == "vitlens", f"{command.text}: only vitlens runs in this process; mark the block"
    result = CliRunner().invoke(app, words[1:])
    wrong = any(line.startswith("error:") for line in command.shown)
    assert (result.exit_code != 0) == wrong, f"{command.text} ends with {result.exit_code}: {result.output} {result.exception!r}"
    return str(result.output)


def spread(word: str) -> list[str]:
    """A word as a shell hands it on: without its quotes, or else a pattern's files."""
    bare = "".join(shlex.split(word))
    return sorted(glob.glob(word, recursive=False)) or [bare] if bare == word else [bare]


def not_said(command: Command, said: str) -> list[str]:
    """The lines that the page shows below a command and that it does not print, whatever their numbers; "..." leaves out."""
    printed = [NUMBER.sub("0", " ".join(line.split())) for line in said.splitlines()]

    def is_there(line: str) -> bool:
        pattern = re.escape(NUMBER.sub("0", " ".join(line.split()))).replace(r"\.\.\.", ".*")
        return any(re.fullmatch(pattern, one) for one in printed)

    return [line for line in command.shown if line.strip() and not is_there(line)]


@pytest.mark.parametrize("page", [page for page, blocks in sorted(RUN.items()) if blocks])
def test_blocks_without_a_mark_run(page: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(modality, "_registered", dict(modality._registered))
    monkeypatch.setenv("COLUMNS", "200")
    module = ModuleType("page")  # where classes of the page live
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in RUN[page]:
        if block.language in SHELL:
            for command in commands_of(block):
                missing = not_said(command, run_command(command))
                assert not missing, f"{block}: `{command.text}` does not print {missing}"
        else:
            exec(compile(block.text, str(block), "exec"), vars(module))

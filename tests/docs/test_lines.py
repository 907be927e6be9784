"""Nothing in the docs is unrun: a block runs (test_run.py), or its mark (blocks.py) says what it needs, and it is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs import blocks
from tests.docs.blocks import NEEDS, PAGES, SHELL, Block, Command, all_blocks, blocks_of, commands_of
from tests.docs.names import WrongName, check_names
from tests.docs.shell import WrongLine, check_command, check_module, check_vitlens
from tests.repository import ROOT


def wrong_marks(block: Block) -> Iterator[str]:
    """What is wrong with a block's language and mark."""
    if block.language not in {*SHELL, "python", "json", "toml", "yaml", "text"}:
        yield f"{block}: a block of {block.language!r}; say bash, console, python, json, toml, yaml or text"
    if block.mark == "needs":
        yield from (f"{block}: needs {need!r}, known are {sorted(NEEDS)}" for need in block.marked if need not in NEEDS)
    if block.mark == "run by":
        for name in block.marked:
            path, _, test = name.partition("::")
            if not (ROOT / path).is_file() or (test and f"def {test}(" not in (ROOT / path).read_text(encoding="utf-8")):
                yield f"{block}: run by {name}, which is not there"
    if block.mark in ("needs", "run by") and not block.marked:
        yield f"{block}: the mark names nothing"


def test_every_mark_is_known() -> None:
    assert [fault for block in all_blocks() for fault in wrong_marks(block)] == []


def test_the_walk_finds_the_pages() -> None:
    assert {"README.md", "docs/index.md", "docs/cli.md", "docs/serving.md"} <= set(PAGES)
    assert len(all_blocks()) > 80


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_those_of_the_command_line(page: str) -> None:
    """Every command of every shell block, run or not: it exists, and so do its options; and those within sentences."""
    faults = []
    shells = [block for block in all_blocks() if block.page == page and block.language in SHELL]
    for command in [command for block in shells for command in commands_of(block)]:
        try:
            check_command(command)
        except WrongLine as error:
            faults.append(str(error))
    for line in blocks.inline_commands(page):
        words = Command(line).words
        try:
            check_vitlens(words[1:], whole=False) if words[0] == "vitlens" else check_module(words[1:])
        except WrongLine as error:
            faults.append(f"`{line}`: {error}")
    assert faults == []


@pytest.mark.parametrize("page", sorted({block.page for block in all_blocks() if block.language == "python"}))
def test_python_blocks_name_what_is_there(page: str) -> None:
    """Also those that run: a name that a page's blocks share is known to those that do not."""
    known: dict[str, Any] = {}
    for block in all_blocks():
        if block.page == page and block.language == "python":
            try:
                check_names(block.text, known)
            except (WrongName, SyntaxError) as error:
                pytest.fail(f"{block}: {error}")


def test_tutorials_are_pages_and_name_what_is_there() -> None:
    """The docs build executes them; that takes longer."""
    pages = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    sources = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
    assert len(sources) >= 7
    for source in sources:
        assert f"tutorials/{source.stem}.md" in pages, f"{source.name} is not in mkdocs.yml's nav"
        check_names(source.read_text(encoding="utf-8"), {})


def test_data_can_be_read(tmp_path: Path) -> None:
    """JSON and YAML; a block that names an anchor's model is a recipe, one without goes into the recipe above it."""
    from vitlens.train import load_recipe

    whole: dict[str, Any] = {}
    for block in all_blocks():
        if block.language == "json":
            json.loads(block.text)
        if block.language == "yaml":
            given = yaml.safe_load(block.text)
            whole = given if "anchors" in given else {**whole, **given}
            (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
            load_recipe(tmp_path / "recipe.yaml")
    assert whole


def test_commands_stand_in_fences() -> None:
    """A command in a block by indentation would be seen by no test."""
    for page in PAGES:
        commands = r"^ {4,}(?:\$ |vitlens |pip install |curl |import |from \w+ import).*"
        assert not re.findall(commands, blocks.outside_blocks(page), re.MULTILINE), page


# --- the checks themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "vitlens embedd a.wav",
        "vitlens embed a.wav --modle vitlens-l",
        "vitlens embed a.wav --batch-size many",
        "vitlens embed a.wav --batch-size 0",
        "vitlens index query --audio a.wav",
        "vitlens index qery things.index",
        "vitlens classify a.ply --labels a,b --model vitlens-xl",
        "vitlens chat -m vitlens-toybox --lens depth=vitlens-dpt",
        "vitlens train vitlens-l-depth --set optimizer.rate=1",
        "vitlens train vitlens-l-deep",
        "vitlens eval esc51 --data-root /data",
        "vitlens info a.png -r depth.scal=1",
        "vitlens similarity a.wav --with-txt 'a car'",
        "torchrun --nproc_per_node=8 -m vitlens train vitlens-l-depth --dry",
        "python -m vitlens.imagbind script.py",
        "make demmo",
        "pip install 'vitlens[mlm]'",
        "pip install vit-lens",
        "pytest -m weights tests/adapters",
        "pytest tests/adapters/test_nothing.py",
        "curl http://127.0.0.1:8000/v1/embed -d '{\"input\": []}'",
        "curl http://127.0.0.1:8000/v1/embeddings",
        "curl http://127.0.0.1:8000/v1/embeddings -d '{\"input\": [}'",
        "rm -rf /",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(WrongLine):
        check_command(Command(line))


@pytest.mark.parametrize(
    "code",
    [
        "from vitlens import nothing",
        "import vitlens.nothing",
        "import nothing_at_all",
        "import vitlens\nvitlens.lod('a')",
        "import vitlens\nvitlens.load('a', modality='b')",
        "import vitlens\nmodel = vitlens.load('a')\nmodel.encod({})",
        "import vitlens\nmodel = vitlens.load('a')\nprint([model.encode({'a': [b]}, batch=3) for b in c])",
        "from vitlens.index import Index\nindex = Index.create('a')",
        "from vitlens.index import Index\nindex = Index.open('a')\nindex.search([], index.space, top=3)",
        "from vitlens.serve import Client\nwith Client('a') as client:\n    client.embedd([])",
        "from vitlens.adapters.chat.llava import LlavaAdapter\nLlavaAdapter.from_pretraind('a')",
        "from vitlens.adapters.chat.llava import LlavaAdapter\nhost = LlavaAdapter.from_pretrained('a')\nhost.generat('b')",
        "from vitlens.adapters.standard.mteb import Encoder",
        "captions = {'a': 'b', ...}",
    ],
)
def test_a_wrong_name_is_found(code: str) -> None:
    with pytest.raises((WrongName, SyntaxError)):
        check_names(code, {})


def test_blocks_are_found_with_their_marks() -> None:
    page = "# A\n\n<!-- needs: gpu, network -->\n\n```bash\na \\\n  b 'c\nd'\n# no\n```\n- x\n  ```console\n  $ e\n  f\n  ```\n"
    first, second = blocks_of(page)
    assert (first.line, first.mark, first.marked, first.runs) == (5, "needs", ("gpu", "network"), False)
    assert [command.text for command in commands_of(first)] == ["a   b 'c\nd'"]
    assert commands_of(second) == [Command("e", ("f",))] and second.runs
    with pytest.raises(ValueError, match="not closed"):
        list(blocks_of("```bash\nvitlens\n"))
    unknown, empty = blocks_of("<!-- needs: luck -->\n```bash\na\n```\n<!-- run by: -->\n```sh\na\n```\n")
    assert list(wrong_marks(unknown)) and list(wrong_marks(empty))

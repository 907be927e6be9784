"""The code blocks of README and docs, and their marks: HTML comments before a block, which no page shows.

    <!-- needs: weights -->                     cannot run here, for want of these (NEEDS); its lines are checked instead
    <!-- run by: tests/imagebind/test_alias.py -->   another test runs the same
    <!-- service -->                            is for a service: checked, and with -m slow asked of one (test_service.py)

A block without a mark runs as it stands (test_run.py), after those above it on the page.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.repository import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if path.name != "CHANGELOG.md"  # tells of what was
)
NEEDS = {
    "weights": "released weights, of ours or of a host",
    "gpu": "a GPU",
    "network": "the network",
    "the rest": "what an outline leaves out",
    "data": "files, a data set or objects of the reader's own",
    "processes": "several processes or machines",
    "minutes": "minutes, or gigabytes",
    "installation": "a machine that may be changed: pip, make",
}
"""What a block may need that a test does not have."""
SHELL = {"bash", "console", "sh"}
OPENING = re.compile(r"^( *)(```+|~~~+) *([\w+-]*)(.*)$")
MARK = re.compile(r"^ *<!-- (needs|run by|service)(?:: *([^>]*?))? *-->$")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text, and what the mark above it says."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    marked: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is to run as it stands."""
        return not self.mark and (self.language in SHELL or self.language == "python")


@dataclass(frozen=True)
class Command:
    """A line of a shell, and what the page shows below it."""

    text: str
    shown: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """What a shell makes of it; 0 stands for what another command would print."""
        return shlex.split(re.sub(r"\$\(.*?\)", "0", self.text), comments=True)


def blocks_of(text: str, page: str = "page.md") -> Iterator[Block]:
    """The fenced blocks of a page.

    Raises:
        ValueError: a fence that is not closed.
    """
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        opening = OPENING.match(lines[at])
        if not opening:
            at += 1
            continue
        indent, fence, language = len(opening[1]), opening[2], opening[3]
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == fence), None)
        if end is None:
            raise ValueError(f"{page}:{at + 1}: the block is not closed")
        above = next((line for line in reversed(lines[:at]) if line.strip()), "")
        mark = MARK.match(above)
        marked = tuple(part.strip() for part in (mark[2] or "").split(",") if part.strip()) if mark else ()
        inside = "\n".join(line[indent:] for line in lines[at + 1 : end])
        yield Block(page, at + 1, language, inside, mark[1] if mark else "", marked)
        at = end + 1


def commands_of(block: Block) -> list[Command]:
    """The commands of a shell block: in a console the lines behind `$ `, else all; a backslash and an open quote go on."""
    found: list[tuple[str, list[str]]] = []
    lines = iter(block.text.splitlines())
    for line in lines:
        if block.language == "console" and not line.startswith("$ "):
            if found:
                found[-1][1].append(line)
            continue
        text = line.removeprefix("$ ") if block.language == "console" else line
        while text.endswith("\\") or _open(text):
            text = text.removesuffix("\\") + ("" if text.endswith("\\") else "\n") + next(lines)
        if text.strip() and not text.lstrip().startswith("#"):
            found.append((text.strip(), []))
    return [Command(text, tuple(shown)) for text, shown in found]


def _open(text: str) -> bool:
    """Whether a quote is open at the end."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


@cache
def all_blocks() -> tuple[Block, ...]:
    return tuple(block for page in PAGES for block in blocks_of((ROOT / page).read_text(encoding="utf-8"), page))


def outside_blocks(page: str) -> str:
    """A page's text without its fenced blocks."""
    return re.sub(r"^ *(```+|~~~+).*?^ *\1 *$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def inline_commands(page: str) -> list[str]:
    """Every `vitlens ...` between backticks, outside of fenced blocks."""
    return [" ".join(found.split()) for found in re.findall(r"`((?:vitlens|torchrun|python -m) [^`]+)`", outside_blocks(page))]

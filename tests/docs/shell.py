"""What a line of a shell says, checked without running it: that its command is there, and takes these options and values."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import metadata
from io import StringIO
from itertools import pairwise
from typing import Any

from packaging.requirements import Requirement

from tests.docs.blocks import Command
from tests.repository import ROOT
from vitlens.errors import VitlensError

PLAIN = {"cat", "ls", "echo"}
"""Commands that only show something."""


class WrongLine(Exception):
    """A line that would not run."""


def check_command(command: Command) -> None:
    """Raises WrongLine unless the command exists, with these options."""
    words = command.words
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    name, rest = words[0], words[1:]
    if name in PLAIN:
        return
    if name not in CHECKS:
        raise WrongLine(f"{command.text}: no check for {name} is known; write one in tests/docs/shell.py")
    try:
        CHECKS[name](rest)
    except (WrongLine, VitlensError, ValueError) as error:
        raise WrongLine(f"{command.text}: {error}") from error


def check_vitlens(arguments: list[str], *, whole: bool = True) -> None:
    """Raises WrongLine unless the command line's own parser takes the arguments.

    If not `whole` (in running text), arguments that are required may be missing, and names may stand for others.
    """
    import typer
    from typer._click import exceptions

    from vitlens.cli.app import app

    command: Any = typer.main.get_command(app)
    context, left, path = None, arguments, "vitlens"
    try:
        while True:
            with redirect_stdout(StringIO()):  # the help
                context = command.make_context(path, list(left), parent=context)
            if not hasattr(command, "resolve_command"):
                break
            left = [*context._protected_args, *context.args]
            path, command, left = command.resolve_command(context, left)
            if not left and not whole:
                return
    except typer.Exit as ended:  # --help, --version
        if ended.exit_code:
            raise WrongLine(f"ends with {ended.exit_code}") from ended
        return
    except exceptions.NoArgsIsHelpError as error:
        raise WrongLine("without arguments it shows its help") from error
    except exceptions.MissingParameter as error:
        if whole:
            raise WrongLine(error.format_message()) from error
        return
    except exceptions.ClickException as error:
        raise WrongLine(error.format_message()) from error
    if whole:
        check_values(context.command.callback.__module__.rpartition(".")[2], context.params)


def check_values(command: str, given: dict[str, Any]) -> None:
    """What the parser takes as a text: names of models, recipes and data sets, read options.

    Raises:
        VitlensError: a name that nothing has.
    """
    from vitlens.benchmarks.datasets import get_dataset
    from vitlens.benchmarks.evaluation.table import is_table
    from vitlens.read_options import parse_read_options
    from vitlens.train import load_recipe
    from vitlens.zoo import card

    lenses = [text.partition("=")[2] for text in given.get("lens") or ()]
    models = given.get("model") or given.get("names") or ()
    for name in [*([models] if isinstance(models, str) else models), *lenses]:
        if name.startswith("vitlens-"):
            card(name)
    if given.get("read_option") and command != "embed":
        parse_read_options(given["read_option"], given.get("modality"))
    if command == "train" and given["recipe"] and not given["recipe"].endswith(".yaml"):
        load_recipe(given["recipe"], set=given["set_"] or [])
    for name in given.get("suites") or ():
        if name not in ("toybox", "all") and not is_table(name):
            get_dataset(name)


def check_module(rest: list[str]) -> None:
    """`python -m MODULE ...`, `torchrun ... -m MODULE ...`"""
    at = rest.index("-m") if "-m" in rest else -1
    if at < 0:
        raise WrongLine("nothing is known of it without -m")
    module, arguments = rest[at + 1], rest[at + 2 :]
    if module == "vitlens":
        check_vitlens(arguments)
    elif importlib.util.find_spec(module) is None:
        raise WrongLine(f"there is no module {module}")


def check_make(targets: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in [word for word in targets if "=" not in word]:
        if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
            raise WrongLine(f"the Makefile has no target {target}")


def check_pip(rest: list[str]) -> None:
    """`pip install` of this package with extras that it has, or of packages that it is tested with."""
    if rest[:1] != ["install"]:
        raise WrongLine("only pip install is known")
    extras = set(metadata("vitlens").get_all("Provides-Extra") or ())
    pinned = {re.split(r"[=;\[ ]", line)[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    for word in rest[1:]:
        if word in (".", "-e", "--upgrade", "--pre"):
            continue
        wanted = Requirement(word.removeprefix(".") if not word.startswith(".[") else f"vitlens{word[1:]}")
        if wanted.name == "vitlens" and not wanted.extras <= extras:
            raise WrongLine(f"{word}: there is no such extra")
        if wanted.name != "vitlens" and wanted.name not in pinned:
            raise WrongLine(f"{word}: not a package that vitlens is tested with")


def check_pytest(rest: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if "-m" in rest and f'    "{rest[rest.index("-m") + 1]}: ' not in project:
        raise WrongLine("an unknown marker")
    for path in [word for word in rest if "/" in word]:
        if not (ROOT / path).exists():
            raise WrongLine(f"there is no {path}")


def check_gate(rest: list[str]) -> None:
    if rest or not (ROOT / ".ci" / "run").exists():
        raise WrongLine("the gate takes no arguments")


def check_curl(rest: list[str]) -> None:
    """A path that the service has, by this method; JSON that is JSON."""
    path = next((match[1] for word in rest if (match := re.match(r"http://127\.0\.0\.1:8000(/[\w/]*)", word))), None)
    method = "POST" if {"-d", "-F"} & set(rest) else "GET"
    if path is None or method not in routes().get(path, set()):
        raise WrongLine(f"the service has no {method} {path}")
    for flag, sent in pairwise(rest):
        if flag == "-d":
            json.loads(sent)


@cache
def routes() -> dict[str, set[str]]:
    """Path -> methods of the service."""
    from vitlens.serve.app import create_app
    from vitlens.serve.service import Service
    from vitlens.serve.settings import Settings

    paths = create_app(Service(Settings(model="vitlens-toybox"))).openapi()["paths"]
    return {path: {method.upper() for method in methods} for path, methods in paths.items()}


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "vitlens": check_vitlens,
    "python": check_module,
    "torchrun": check_module,
    "make": check_make,
    "pip": check_pip,
    "pytest": check_pytest,
    ".ci/run": check_gate,
    "curl": check_curl,
}

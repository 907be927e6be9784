"""Runs of the command line and imports where libraries of extras are gone; a script, started by test_extras.py.

`python -m tests.without_extras FOLDER` reads a list of jobs as JSON and prints what came of each, as JSON lines. A job runs in a
fork of a process that has torch, so that it starts at once and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import traceback
from importlib import import_module, metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vitlens.errors import MissingDependencyError
from vitlens.libraries import extras

LONGEST = 150
"""Seconds after which a command is taken to run well: it got beyond its imports."""


def of_the_core() -> set[str]:
    """The packages that `pip install vitlens` brings, with all that they need."""
    found: set[str] = set()
    left = ["vitlens"]
    while left:
        package = canonicalize_name(left.pop())
        if package in found:
            continue
        found.add(package)
        try:
            needs = metadata.requires(package) or ()
        except metadata.PackageNotFoundError:
            continue
        needed = [Requirement(line) for line in needs]
        left += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def libraries_of(core: set[str]) -> dict[str, list[str]]:
    """Extra -> the libraries that are not there without it."""
    homes = metadata.packages_distributions()
    owned = {module: {canonicalize_name(owner) for owner in owners} - core for module, owners in homes.items()}
    return {extra: [module for module, owners in owned.items() if owners & packages] for extra, packages in extras().items()}


def take_away(modules: list[str]) -> None:
    """Let these libraries be as if they were not installed, in this process."""
    for module in modules:
        for loaded in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            del sys.modules[loaded]
        sys.modules[module] = None  # type: ignore[assignment]


def run_command(command: str) -> dict[str, Any]:
    """What `vitlens ...` says, and how it ends."""
    from typer.testing import CliRunner

    from vitlens.cli.app import app

    result = CliRunner().invoke(app, shlex.split(command, comments=True)[1:], input="")
    raised = result.exception if not isinstance(result.exception, SystemExit) else None
    shown = "".join(traceback.format_exception(raised)) if raised else ""
    return {"code": result.exit_code, "said": result.output[-3000:], "raised": shown}


def run_imports(modules: list[str]) -> dict[str, Any]:
    """The modules whose import fails with anything but a pip line."""
    failed = {}
    for module in modules:
        try:
            import_module(module)
        except MissingDependencyError as error:
            if "pip install" not in str(error):
                failed[module] = str(error)
        except Exception as error:
            failed[module] = repr(error)
    return {"failed": failed}


def forked(job: dict[str, Any], libraries: dict[str, list[str]]) -> dict[str, Any]:
    """What comes of a job in a process of its own."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST)
        kept = {module for extra, modules in libraries.items() if extra not in job["gone"] for module in modules}
        take_away([module for extra in job["gone"] for module in libraries[extra] if module not in kept])
        found = run_command(job["command"]) if "command" in job else run_imports(job["imports"])
        with os.fdopen(theirs, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"code": 0, "said": "", "raised": "", "failed": {}}


def main() -> None:
    import torch  # noqa: F401

    libraries = libraries_of(of_the_core())
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line), libraries)), flush=True)


if __name__ == "__main__":
    main()

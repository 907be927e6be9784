"""`python -m vitlens.imagebind [--model NAME] [--alias NAME] script.py ...`: run a program of ImageBind's on the drop-in."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from vitlens.imagebind.alias import AliasError, install


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vitlens.imagebind",
        usage="%(prog)s [--model NAME] [--alias NAME] (SCRIPT | -m MODULE) [ARGUMENT ...]",
        description="Run a program in which `import imagebind` means vitlens's drop-in.",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="zoo name or native folder; default: VITLENS_IMAGEBIND_MODEL, else vitlens-l"
    )
    parser.add_argument(
        "--alias",
        metavar="NAME",
        action="append",
        default=[],
        help="another name of ImageBind in that program, such as ImageBind or image_bind; may be given several times",
    )
    parser.add_argument("-m", dest="module", metavar="MODULE", help="run a module instead of a script")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="the script and its arguments")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Install the alias and run the script (or module) as `__main__`, with its own arguments in `sys.argv`."""
    parser = _parser()
    found = parser.parse_args(arguments)
    if not found.module and not found.rest:
        parser.error("name a script to run, or a module with -m")
    if not found.module and not Path(found.rest[0]).exists():
        parser.error(f"no such script: {found.rest[0]}")
    try:
        install(found.model)
        for alias in found.alias:
            install(alias=alias)
    except AliasError as error:
        parser.error(str(error))
    if found.module:
        sys.argv = [found.module, *found.rest]
        sys.path[0:0] = [""]
        runpy.run_module(found.module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(found.rest)
        sys.path[0:0] = [str(Path(found.rest[0]).resolve().parent)]
        runpy.run_path(found.rest[0], run_name="__main__")


if __name__ == "__main__":
    main()

"""The command line as tests call it: in this process, with what it printed and how it ended."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from vitlens.cli.app import app


def run(*arguments: object, code: int = 0) -> Any:
    """The result of `vitlens ARGUMENTS...`, which ends with `code` and shows no traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def refused(*arguments: object) -> str:
    """The last line on standard error of a command that is refused and prints nothing else."""
    result = run(*arguments, code=2)
    assert result.stdout == ""
    return str(result.stderr.strip().splitlines()[-1])

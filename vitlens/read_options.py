"""Read options as people write them - `depth.scale=0.001` on a command line, a cell of a manifest - checked and typed."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from typing import Any

from vitlens.checks import known
from vitlens.errors import OptionError
from vitlens.modality import modality_class


def parse_read_options(given: Iterable[str], modality: str | None = None) -> dict[str, dict[str, Any]]:
    """`["depth.scale=0.001"]` as {modality: {option: value}}; the modality may be left out when there is one for all files.

    Raises:
        OptionError: not MODALITY.OPTION=VALUE, or an option this modality's reader does not have.
    """
    options: dict[str, dict[str, Any]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        name, dot, option = key.partition(".")
        if not dot and modality:
            name, option = modality, key
        if not equals or not name or not option:
            raise OptionError(f"--read-option {text!r}: write it as MODALITY.OPTION=VALUE, such as depth.scale=0.001")
        check_read_option(name, option, f"--read-option {text}")
        options.setdefault(name, {})[option] = typed_read_option(name, option, value)
    return options


def check_read_option(modality: str, option: str, where: str) -> None:
    """Raises OptionError unless `modality`'s reader has `option`; ModalityError for an unknown modality."""
    known(f"{where}: {modality} has no read option", [option], modality_class(modality).read_options())


def typed_read_option(modality: str, option: str, given: Any) -> Any:
    """A text as the kind of value the reader's signature asks for: text, truth value, or whatever JSON makes of it.

    Raises:
        OptionError: a truth value that is neither true nor false.
    """
    if not isinstance(given, str):
        return given
    parameter = inspect.signature(modality_class(modality).read).parameters[option]
    words = set(re.findall(r"\w+", str(parameter.annotation)))
    if "bool" in words and "str" not in words:
        if given.lower() not in ("true", "false", "yes", "no"):
            raise OptionError(f"read option {modality}.{option} must be true or false, found {given!r}")
        return given.lower() in ("true", "yes")
    if words <= {"str", "None", "Optional"} and "str" in words:
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given

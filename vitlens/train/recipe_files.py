"""Recipes from YAML files, shipped ones and `key=value` changes; what is wrong is said with its key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from vitlens.errors import MissingDependencyError, OptionError
from vitlens.train.options import INSTALL, RunOptions
from vitlens.train.recipe import LoraOptions, Recipe


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _shipped().iterdir() if entry.name.endswith(".yaml"))


def _shipped() -> Any:
    return files("vitlens.train").joinpath("recipes")


def load_recipe(source: str | os.PathLike[str] | Mapping[str, Any], *, set: Iterable[str] = ()) -> Recipe:
    """A recipe from a YAML file, the name of a shipped one, or a mapping; `set` holds changes such as `optimizer.lr=1e-3`.

    Raises:
        OptionError: no such recipe, no YAML, or a key or value that does not fit; the key is named.
    """
    conf = omegaconf()
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError, safe_load

    where = "recipe" if isinstance(source, Mapping) else f"recipe {os.fspath(source)}"
    try:
        text = dict(source) if isinstance(source, Mapping) else _text_of(source)
        if isinstance(text, str) and not isinstance(safe_load(text) or {}, dict):
            raise OptionError(f"{where}: no recipe, which is a YAML file of KEY: VALUE (vitlens train NAME --show prints one)")
        given = conf.create(text)
        changes = conf.from_dotlist([_checked_change(change) for change in set])
        return conf.to_object(conf.merge(conf.structured(Recipe), given or {}, changes))
    except OmegaConfBaseException as error:
        raise OptionError(f"{where}: {_explained(error)}") from error
    except YAMLError as error:
        raise OptionError(f"{where}: not YAML ({' '.join(str(error).split())})") from error


def recipe_yaml(options: RunOptions) -> str:
    """A recipe, or the options of another run, as YAML, every field written out."""
    return omegaconf().to_yaml(omegaconf().create(options.to_dict()))


def _text_of(source: str | os.PathLike[str]) -> str:
    path = Path(source)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise OptionError(f"recipe {path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if os.fspath(source) in shipped_recipes():
        return _shipped().joinpath(f"{os.fspath(source)}.yaml").read_text(encoding="utf-8")
    raise OptionError(f"recipe {os.fspath(source)}: no such file, nor a shipped recipe ({', '.join(shipped_recipes())})")


def _checked_change(change: str) -> str:
    if "=" not in change:
        raise OptionError(f"--set {change!r}: write it as KEY=VALUE, such as optimizer.lr=1e-3")
    return change


def _explained(error: Exception) -> str:
    """OmegaConf's message in one line: the full key, what is wrong, and for an unknown key the known ones."""
    key = str(getattr(error, "full_key", "") or "")
    *path, last = key.split(".")
    holder: Any = Recipe
    for part in path:
        default = {f.name: f for f in fields(holder)}.get(part) if is_dataclass(holder) else None
        made = default.default_factory() if default is not None and callable(default.default_factory) else None
        holder = type(made) if made is not None else LoraOptions if part == "lora" else None
    if type(error).__name__ == "ConfigKeyError" and is_dataclass(holder):
        known = [f.name for f in fields(holder)]
        close = difflib.get_close_matches(last, known, n=1)
        hint = f"; did you mean {'.'.join([*path, close[0]])}?" if close else ""
        return f"unknown key {key!r}{hint} Known{' in ' + '.'.join(path) if path else ''}: {', '.join(known)}"
    return f"{key}: {str(error).splitlines()[0]}"


def omegaconf() -> Any:
    try:
        from omegaconf import OmegaConf
    except ImportError as error:
        raise MissingDependencyError(f"recipes need omegaconf: {INSTALL}") from error
    return OmegaConf

"""`import imagebind` gives `vitlens.imagebind`: a finder that answers for the name, so that no module is ever loaded twice.

Other projects carry copies of ImageBind under names of their own (`ImageBind`, `image_bind`, `their_package.imagebind`): the
finder answers for those that it is told.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from vitlens.errors import VitlensError

ENV = "VITLENS_IMAGEBIND_MODEL"
"""The environment variable that names the model behind `imagebind_huge` and the loaders."""
ALIAS, HOME = "imagebind", "vitlens.imagebind"


class AliasError(VitlensError, ImportError):
    """The name `imagebind`, or another that is asked for, is taken by the real package, or is none."""


class _Finder(MetaPathFinder, Loader):
    """Answers `imagebind` and `imagebind.*`, and its other names, with the modules of `vitlens.imagebind` themselves."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def home_of(self, fullname: str) -> str | None:
        """The module of ours that is meant by `fullname`; None where it is none of the names'."""
        for name in self.names:
            if fullname == name or fullname.startswith(f"{name}."):
                rest = fullname[len(name) :]
                if rest == f".{ALIAS}" or rest.startswith(f".{ALIAS}."):  # a clone's folder, with the package in it
                    rest = rest[len(ALIAS) + 1 :]
                return HOME + rest
        return None

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        home = self.home_of(fullname)
        if home is None:
            return None
        try:
            found = importlib.util.find_spec(home)
        except ModuleNotFoundError:  # a module of a module that is no package
            found = None
        if found is None:
            name = next(name for name in self.names if fullname.startswith(name))
            raise ModuleNotFoundError(
                f"no module {fullname!r}: {name} is vitlens's drop-in here, which has {name}.data and {name}.models with "
                "imagebind_model, multimodal_preprocessors, helpers and transformer; ImageBind's own layers are not part of it",
                name=fullname,
            )
        return ModuleSpec(fullname, self, is_package=found.submodule_search_locations is not None)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        home = self.home_of(spec.name)
        assert home is not None  # find_spec made this spec
        module = import_module(home)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        alias = module.__spec__  # the import system has just written it; the module keeps the spec it was really loaded with
        if alias is not None and alias.loader is self:
            module.__spec__ = alias.loader_state


_finder = _Finder()


def install(model: str | None = None, *, alias: str = ALIAS) -> None:
    """From now on `import imagebind`, and all imports from it, give this drop-in, in this process. Calling it again is no harm.

    `model` (a zoo name or a native folder) is the model behind it: it is put into the environment variable
    VITLENS_IMAGEBIND_MODEL, so that processes started from here use it too. `alias` is another name by which a program knows its
    copy of ImageBind: "ImageBind", "image_bind", "their_package.imagebind"; each call adds one.

    Raises:
        AliasError: the real ImageBind has been imported already under this name, or `alias` is no name of a module.
    """
    if not isinstance(alias, str) or not all(part.isidentifier() for part in alias.split(".")) or alias.startswith("vitlens"):
        raise AliasError(f'alias must be the name of a module, such as "ImageBind" or "their_package.imagebind", found {alias!r}')
    strangers = [name for name, module in _loaded(alias).items() if not _ours(module)]
    if strangers:
        place = getattr(sys.modules[strangers[0]], "__file__", None) or "an unknown place"
        raise AliasError(
            f"{strangers[0]} is already imported, from {place}: call vitlens.imagebind.install() before anything imports "
            f"{alias}, or run the program with python -m vitlens.imagebind"
        )
    if model is not None:
        os.environ[ENV] = model
    if alias not in _finder.names:
        _finder.names.append(alias)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def installed() -> bool:
    """Whether an alias is in force: whether programs run here that were written for ImageBind, and not changed."""
    return _finder in sys.meta_path


def uninstall() -> None:
    """Take all aliases back: `import imagebind` means again what is installed under that name. Modules in use are not touched."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for alias in _finder.names:
        for name, module in _loaded(alias).items():
            if _ours(module):
                del sys.modules[name]
    _finder.names.clear()


def _loaded(alias: str) -> dict[str, ModuleType]:
    return {name: module for name, module in list(sys.modules.items()) if name == alias or name.startswith(f"{alias}.")}


def _ours(module: ModuleType) -> bool:
    return getattr(module, "__name__", "").startswith(HOME)

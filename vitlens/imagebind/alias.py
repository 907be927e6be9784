"""`import imagebind` gives `vitlens.imagebind`: a finder that answers for the name, so that no module is ever loaded twice."""

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
    """The name `imagebind` is taken by the real package."""


class _Finder(MetaPathFinder, Loader):
    """Answers `imagebind` and `imagebind.*` with the modules of `vitlens.imagebind` themselves."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != ALIAS and not fullname.startswith(f"{ALIAS}."):
            return None
        home = HOME + fullname.removeprefix(ALIAS)
        found = importlib.util.find_spec(home)
        if found is None:
            raise ModuleNotFoundError(
                f"no module {fullname!r}: imagebind is vitlens's drop-in here, which has imagebind.data and "
                "imagebind.models.imagebind_model; ImageBind's own layers are not part of it",
                name=fullname,
            )
        return ModuleSpec(fullname, self, is_package=found.submodule_search_locations is not None)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(HOME + spec.name.removeprefix(ALIAS))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        alias = module.__spec__  # the import system has just written it; the module keeps the spec it was really loaded with
        if alias is not None and alias.loader is self:
            module.__spec__ = alias.loader_state


_finder = _Finder()


def install(model: str | None = None) -> None:
    """From now on `import imagebind`, and all imports from it, give this drop-in, in this process. Calling it again is no harm.

    `model` (a zoo name or a native folder) is the model behind it: it is put into the environment variable
    VITLENS_IMAGEBIND_MODEL, so that processes started from here use it too.

    Raises:
        AliasError: the real ImageBind has been imported already.
    """
    strangers = [name for name, module in _aliased().items() if not _ours(module)]
    if strangers:
        place = getattr(sys.modules[strangers[0]], "__file__", None) or "an unknown place"
        raise AliasError(
            f"{strangers[0]} is already imported, from {place}: call vitlens.imagebind.install() before anything imports "
            "imagebind, or run the program with python -m vitlens.imagebind"
        )
    if model is not None:
        os.environ[ENV] = model
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Take the alias back: `import imagebind` means again what is installed under that name. Modules in use are not touched."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name, module in _aliased().items():
        if _ours(module):
            del sys.modules[name]


def _aliased() -> dict[str, ModuleType]:
    return {name: module for name, module in list(sys.modules.items()) if name == ALIAS or name.startswith(f"{ALIAS}.")}


def _ours(module: ModuleType) -> bool:
    return getattr(module, "__name__", "").startswith(HOME)

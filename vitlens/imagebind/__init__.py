"""A drop-in for ImageBind (arXiv 2305.05665): its names and tensor layouts, with ViT-Lens models behind them.

    from vitlens.imagebind import data
    from vitlens.imagebind.models import imagebind_model
    from vitlens.imagebind.models.imagebind_model import ModalityType

or, for code that cannot be changed, `vitlens.imagebind.install()` (or `python -m vitlens.imagebind script.py`), after which
`import imagebind` means this package. What differs from ImageBind is told in docs/imagebind.md. Importing this package loads
neither torch nor a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vitlens.imagebind.alias import AliasError, install, uninstall

if TYPE_CHECKING:
    from vitlens.imagebind import data as data
    from vitlens.imagebind import models as models
    from vitlens.imagebind.models import imagebind_model as imagebind_model
    from vitlens.imagebind.names import ModalityType as ModalityType

_HOMES = {
    "data": ("vitlens.imagebind.data", None),
    "models": ("vitlens.imagebind.models", None),
    "imagebind_model": ("vitlens.imagebind.models.imagebind_model", None),
    "ModalityType": ("vitlens.imagebind.names", "ModalityType"),
}
__all__ = ["AliasError", "ModalityType", "data", "imagebind_model", "install", "models", "uninstall"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitlens.imagebind' has no attribute {name!r}; it has {', '.join(__all__)}")
    home, attribute = _HOMES[name]
    module = import_module(home)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

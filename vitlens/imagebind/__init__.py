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

from vitlens.imagebind.absent import answer
from vitlens.imagebind.alias import AliasError, install, uninstall

if TYPE_CHECKING:
    from vitlens.imagebind import data as data
    from vitlens.imagebind import models as models
    from vitlens.imagebind.models import imagebind_model as imagebind_model
    from vitlens.imagebind.names import ModalityType as ModalityType

_MODEL, _DATA = "vitlens.imagebind.models.imagebind_model", "vitlens.imagebind.data"
LOADERS = tuple(
    f"load_and_transform_{name}"
    for name in (
        "text", "vision_data", "audio_data", "video_data", "depth_data", "thermal_data", "imu_data", "point_cloud_data",
        "tactile_data", "eeg_data", "pressure_data",
    )
)  # fmt: skip
_HOMES: dict[str, tuple[str, str | None]] = {
    "data": (_DATA, None),
    "models": ("vitlens.imagebind.models", None),
    "imagebind_model": (_MODEL, None),
    "ModalityType": ("vitlens.imagebind.names", "ModalityType"),
    "ImageBindModel": (_MODEL, "ImageBindModel"),
    "imagebind_huge": (_MODEL, "imagebind_huge"),
    **{loader: (_DATA, loader) for loader in ("load_and_transform", *LOADERS)},
}
__all__ = ["AliasError", "__version__", "install", "uninstall", *_HOMES]

_absent = answer(__name__, f"it has {', '.join(name for name in __all__ if name != '__version__')}")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vitlens")
    if name not in _HOMES:
        return _absent(name, 2)
    home, attribute = _HOMES[name]
    module = import_module(home)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

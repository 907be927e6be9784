"""Names that ImageBind has and this drop-in has not: `from imagebind.data import X` ends in an ImportError that says what to use.

Only an import statement is answered so. Of `hasattr(data, "x")` and its like an AttributeError is expected, as of any module.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Mapping
from typing import Any

from vitlens.errors import VitlensError

LAYERS = (
    "ImageBind's own layers are not part of this drop-in; "
    "what does their work is model.vitlens.encoders['audio'].embed, .lens and .vit"
)


class AbsentError(VitlensError, ImportError):
    """A name of ImageBind's that this drop-in does not have; says what to use."""


def answer(module: str, instead: str, particular: Mapping[str, str] | None = None) -> Callable[..., Any]:
    """A `__getattr__` for `module`: what it has not is refused with `instead`, or with what `particular` says of the name.

    A `__getattr__` that calls it is one frame further from who asks: `depth` 2.
    """

    def missing(name: str, depth: int = 1) -> Any:
        said = f"module {module!r} has no attribute {name!r}: {(particular or {}).get(name, instead)}"
        if name.startswith("__") or not _importing(sys._getframe(depth)):
            raise AttributeError(said, name=name)
        raise AbsentError(said, name=name)

    return missing


def _importing(frame: Any) -> bool:
    """Whether `frame` is at a `from ... import`. (There an AttributeError would be replaced, and its advice be lost.)"""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"

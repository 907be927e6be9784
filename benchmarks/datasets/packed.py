"""Arrays that lie in a larger file, taken out of it when they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.errors import InputError
from vitlens.store.digests import stat_key


@dataclass(frozen=True, eq=False)
class LateArray(os.PathLike[str]):
    """An array in a pack, as the `source` of an item.

    Readers take it as an array (it converts as a tensor does) and messages name it as a path with its place: `pack.npy[17]`.
    `take` must be a function at the top of a module, or a `functools.partial` of one, so that loader workers get it too.
    """

    path: str
    place: int | str
    take: Callable[[], np.ndarray]
    dtype: str = "packed"
    size: int = 0
    """Not known before it is taken out."""

    def __fspath__(self) -> str:
        return f"{self.path}[{self.place}]"

    def detach(self) -> LateArray:
        """Itself: there is no gradient."""
        return self

    def cpu(self) -> LateArray:
        """Itself: it is on no device."""
        return self

    def numpy(self) -> np.ndarray:
        """The array.

        Raises:
            InputError: as reading the file does.
        """
        return self.take()

    def stat_key(self) -> str:
        """What changes when the pack does: a store of embeddings asks for it.

        Raises:
            InputError: the pack is not there any more.
        """
        try:
            return f"{stat_key(Path(self.path))}\0{self.place}"
        except OSError as error:
            raise InputError(
                self.path, f"cannot be opened ({error.strerror})", "the pack, as it was when its items were listed"
            ) from error

    def content(self) -> bytes:
        """Shape, type and values of the array, for a store of embeddings."""
        array = np.ascontiguousarray(self.take())
        return f"{array.shape} {array.dtype.str}\0".encode() + array.tobytes()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.take(), dtype=dtype)

"""The recording that was read last, for as long as windows of it are asked for: it is read, resampled and standardized once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any


class Last:
    """One value, kept until another is asked for; in threads each waits for the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: Hashable = None
        self._value: Any = None

    def get(self, key: Hashable, make: Callable[[], Any], good: Callable[[Any], bool] = lambda value: True) -> Any:
        """What was made for `key` if that is the last one and still `good`, else what `make` gives."""
        with self._lock:
            if key != self._key or not good(self._value):
                self._key = self._value = None  # the old one need not stay while the new one is made
                self._value = make()
                self._key = key
            return self._value


RECORDING, PREPARED = Last(), Last()


def of_file(path: str | os.PathLike[str]) -> Hashable:
    """What a file is known by while it does not change."""
    there = Path(path).stat() if Path(path).is_file() else None
    return os.path.abspath(path), there and (there.st_mtime_ns, there.st_size)

"""Loops over points and bytes, compiled by numba when they are first called."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` through numba, compiled on its first call and cached on disk where a cache folder can be written."""
    import numba

    # max() over a bucket vectorises only without NaN and signed zeros; "contract" would fuse multiply and add and change indices
    options: dict[str, Any] = {"nogil": True, "fastmath": {"nnan", "nsz"}}
    try:
        return numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # no folder for the cache
        return numba.njit(**options)(kernel)

"""Libraries that need more than an import statement."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from vitlens.errors import MissingDependencyError


def load_open3d() -> Any:
    """Import open3d, which takes seconds. On Linux it needs libusb: without the system's, the `libusb-package` wheel's is used.

    Raises:
        MissingDependencyError: open3d, or on Linux libusb-package, is not installed.
    """
    try:
        if sys.platform == "linux":
            try:
                ctypes.CDLL("libusb-1.0.so.0")
            except OSError:
                import libusb_package

                ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
        import open3d
    except ModuleNotFoundError as error:
        advice = "pip install 'vitlens[toybox]'"
        raise MissingDependencyError(f"open3d, which draws the Toybox, cannot be imported ({error}): {advice}") from error
    return open3d

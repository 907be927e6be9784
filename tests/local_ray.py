"""Ray on this machine for tests, and a way to kill one of its processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LINUX = Path("/proc/self/cmdline").exists()
"""Whether Ray's processes can be found, by what they call themselves."""


@contextmanager
def local_ray(memory: int = 100 << 20) -> Iterator[None]:
    """Ray with two processors; the test is skipped where it does not start in time."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_worker_niceness", "0")
    for attempt in range(3):  # a machine that is very busy may be too slow for it
        try:
            ray.init(address="local", include_dashboard=False, num_cpus=2, object_store_memory=memory, log_to_driver=False)
        except Exception:
            ray.shutdown()
            if attempt == 2:
                pytest.skip("Ray did not start in 30 s, three times: run it when the machine is less busy")
        else:
            break
    yield
    ray.shutdown()


def kill_one(title: str, done: threading.Event) -> None:
    """Kill the first process that calls itself so."""
    while not done.wait(0.002):
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(title.encode()):
                    os.kill(int(folder.name), signal.SIGKILL)
                    done.set()
                    return
            except OSError:
                continue

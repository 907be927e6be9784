"""`vitlens serve` as a process of its own, for what only a real port shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx


class Served:
    """A service at a free port; `with` ends it by SIGTERM."""

    def __init__(self, *options: str, log: Path) -> None:
        command = [sys.executable, "-m", "vitlens", "serve", "--port", "0", "--readers", "1", "--device", "cpu", *options]
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ))
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        self.address = self.line.rpartition(" at ")[2]

    def ready(self) -> Served:
        """Itself, once it is ready."""
        for _ in range(1800):
            try:
                if httpx.get(f"{self.address}/healthz/ready", timeout=10).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(120)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.end()
        finally:
            self.process.kill()

"""The application on a port (uvicorn): it listens while the model is loaded, and finishes what it accepted before it ends."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vitlens.errors import OptionError
from vitlens.serve.app import create_app
from vitlens.serve.logs import log_as_json
from vitlens.serve.service import Service

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients keep theirs (httpx 5, aiohttp 15), who would meet its end."""


class Hasty(H11Protocol):
    """uvicorn's HTTP/1.1, with a limit on how long a request's head may take: uvicorn waits for it for ever."""

    head_seconds = 30.0
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._head is None and self._idle():
            self._await_head()
        super().data_received(data)
        if not self._idle():
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _idle(self) -> bool:
        """Whether no request's head is complete that is not answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.head_seconds, self._too_late)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_late(self) -> None:
        self._head = None
        if self._idle() and not self.transport.is_closing():
            self.transport.close()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port` (0: any free one).

    Raises:
        OptionError: the port is taken or not allowed, or the host is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        why = {errno.EADDRINUSE: "the port is taken", errno.EACCES: "ports below 1024 are not for everybody"}
        reason = why.get(number or 0, getattr(error, "strerror", "") or str(error))
        raise OptionError(f"cannot listen at {host}, port {port}: {reason}; choose another with --host and --port") from error
    return found


def run(service: Service, listener: socket.socket, *, log_level: str = "info") -> None:
    """Serve until a signal comes; a second one does not wait for what was accepted.

    Raises:
        VitlensError: the model cannot be loaded.
    """
    log_as_json(log_level)
    protocol = type("HastyWithin", (Hasty,), {"head_seconds": service.limits.upload_seconds})
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        http=protocol,
        lifespan="on",
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
    )
    server = uvicorn.Server(config)

    def give_up() -> None:
        server.should_exit = True

    service.on_failure = give_up
    server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure

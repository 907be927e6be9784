"""What every request passes: its id and log line, who may come in, how many at once, and how much and how slowly they may send.

All forms of request meet the same gate, so that one over the limit gets the same answer in whatever form it came.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitlens.serve.logs import LOG, Visit
from vitlens.serve.refusals import Refusal, refusal_of, too_large
from vitlens.serve.service import Service
from vitlens.serve.settings import MB, OPTIONS, Limits

OPEN = ("/", "/healthz", "/healthz/live", "/healthz/ready", "/.well-known/live", "/.well-known/ready")
"""Paths that need no token: whether the service is there, and the page, which asks for one."""
OPEN_BELOW = "/static/"
SLOWEST = 10_000
"""Bytes a second below which an upload is ended, once it had its first seconds."""
RECENT = 64


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.queue = Queue(service)
        self.tokens = [hashlib.sha256(token.encode()).digest() for token in sorted(service.settings.tokens)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visit = Visit(_request_id(headers), scope["method"], scope["path"])
        scope["vitlens.visit"] = visit

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = visit.request_id
            await send(message)

        upload = Upload(receive, visit, self.service.limits)
        try:
            await self._enter(scope, headers, visit, upload, answer)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.status_code == 500:
                LOG.exception("error", extra={"told": {"request_id": visit.request_id}})
            if visit.status:  # the answer has begun: the connection ends, which tells the client
                raise
            visit.code = refusal.code
            if headers.get("expect", "").lower() != "100-continue":
                await upload.discard()  # a client that is still sending would not see the answer
            await refusal.response()(scope, receive, answer)
        finally:
            self._tell(visit)

    async def _enter(self, scope: Scope, headers: Headers, visit: Visit, upload: Upload, answer: Send) -> None:
        self._check_names(headers, scope["method"])
        self._check_token(headers, scope["path"])
        if scope["method"] != "POST":
            await self.app(scope, upload, answer)
            return
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "compressed bodies are not taken; send the request as it is", code="unsupported_encoding")
        length = headers.get("content-length", "")
        size = int(length) if length.isdigit() else 0
        limits = self.service.limits
        if size > limits.request_bytes:
            raise too_large("request", f"{size / MB:.1f} MB", "request_bytes", limits)
        with self.queue.place(size):
            await self.app(scope, upload, answer)

    def _check_names(self, headers: Headers, method: str) -> None:
        """Refuse pages of other sites: under a name that is none of ours, or from an origin that was not allowed."""
        settings, host = self.service.settings, headers.get("host", "")
        if settings.names and re.sub(r":\d*$", "", host).lower() not in settings.names:
            message = f"this service is not called {host[:100]!r}; known: {', '.join(settings.names)} (--name adds one)"
            raise Refusal(421, message, code="unknown_host")
        origin = headers.get("origin")
        if method != "GET" and origin is not None and origin not in settings.origins and urlsplit(origin).netloc != host:
            message = f"pages of {origin[:100]} may not use this service (--cors-origin allows them)"
            raise Refusal(403, message, code="origin_not_allowed")

    def _check_token(self, headers: Headers, path: str) -> None:
        if not self.tokens or path in OPEN or path.startswith(OPEN_BELOW):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest()
        # Every token is compared whole, so that the time tells nothing.
        good = sum(hmac.compare_digest(given, known) for known in self.tokens)
        if scheme.lower() != "bearer" or not good:
            message = "this service wants a token: send Authorization: Bearer TOKEN"
            raise Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _tell(self, visit: Visit) -> None:
        visit.log()
        metrics = self.service.metrics
        if visit.method != "POST":
            return
        route = visit.route or "unknown"
        metrics.count.add(route, visit.modality)
        metrics.duration.labels(route, visit.modality).observe(time.monotonic() - visit.started)
        if 200 <= visit.status < 400:
            metrics.success.add(route, visit.modality)
        else:
            metrics.failure.add(route, visit.code or "disconnected")


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[\w.:/+=-]{1,128}", given, re.ASCII) else uuid.uuid4().hex


class Queue:
    """How many requests were accepted and are not answered, and how many bytes they brought."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.requests = self.bytes = 0
        self._answered: deque[float] = deque(maxlen=RECENT)

    @contextmanager
    def place(self, size: int) -> Iterator[None]:
        """A place for a request of `size` bytes while the block runs.

        Raises:
            Refusal: 429, there is none.
        """
        limits: Limits = self.service.limits
        full = "queue" if self.requests >= limits.queue else "queue_bytes" if self.bytes + size > limits.queue_bytes else ""
        if full:
            raise self._refusal(full)
        self._change(1, size)
        try:
            yield
        finally:
            self._change(-1, -size)
            self._answered.append(time.monotonic())

    def _change(self, requests: int, size: int) -> None:
        self.requests += requests
        self.bytes += size
        self.service.metrics.accepted.set(self.requests)

    def _refusal(self, full: str) -> Refusal:
        limits = self.service.limits
        most = f"{limits.queue} requests" if full == "queue" else f"{limits.queue_bytes / MB:g} MB of requests"
        seconds = self.wait()
        message = f"the queue is full: {most} wait already ({OPTIONS[full]} changes that); try again in {seconds} s"
        return Refusal(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(seconds)})

    def wait(self) -> int:
        """Seconds until half of the queue is likely to be answered, by how fast the last ones were."""
        if len(self._answered) < 2:
            return 1
        rate = len(self._answered) / max(time.monotonic() - self._answered[0], 1e-3)
        return min(max(math.ceil(self.requests / 2 / rate), 1), 60)


class Upload:
    """What a client sends, within the limits of size and time; as an ASGI `receive`."""

    def __init__(self, receive: Receive, visit: Visit, limits: Limits) -> None:
        self._receive, self._visit, self._limits = receive, visit, limits
        self._complete = False
        self._refusing = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        allowed = self._limits.upload_seconds + self._visit.received / SLOWEST
        left = allowed - (time.monotonic() - self._visit.started)
        try:
            with anyio.fail_after(min(max(left, 0.001), self._limits.upload_seconds)):
                message = await self._receive()
        except TimeoutError as error:
            self._complete = True  # nothing more is waited for
            said = f"the request's body came too slowly ({OPTIONS['upload_seconds']} {self._limits.upload_seconds:g})"
            raise Refusal(408, said, code="too_slow", headers={"Connection": "close"}) from error
        if message["type"] != "http.request":
            self._complete = True
            return message
        self._visit.received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._visit.received > self._limits.request_bytes and not self._refusing:
            await self.discard()
            found = f"more than {self._limits.request_bytes / MB:g} MB"
            raise too_large("request", found, "request_bytes", self._limits)
        return message

    async def discard(self) -> None:
        """Take what the client still sends, and keep nothing, for as long as an upload may take."""
        self._refusing = True
        try:
            while not self._complete:
                await self()
        except Refusal:  # too slow: the answer that was to be given stands
            self._complete = True

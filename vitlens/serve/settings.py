"""What a service is told when it starts: its model, and its limits, each an option of `vitlens serve` that refusals name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.store.items import Item

MB = 1_000_000
GB = 1000 * MB


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one client may ask for, and all of them together."""

    file_bytes: int = 64 * MB
    """One file, as it is sent or fetched."""
    request_bytes: int = 128 * MB
    """The body of one request."""
    items: int = 2048
    """Things to embed in one request, labels among them."""
    queue: int = 2048
    """Requests that were accepted and are not answered; above it comes 429."""
    queue_bytes: int = 1 * GB
    """Their bodies together."""
    upload_seconds: float = 30.0
    """Without a byte of a request's head or body, and for the whole of it beside a second per 10 kB."""
    read_seconds: float = 30.0
    """For reading and preprocessing one file, beside a second per megabyte."""
    read_bytes: int = 2 * GB
    """Memory that reading one file may take."""

    def __post_init__(self) -> None:
        for name in ("file_bytes", "request_bytes", "items", "queue", "queue_bytes", "read_bytes"):
            checks.whole(f"serve: {name}", getattr(self, name), least=1)
        for name in ("upload_seconds", "read_seconds"):
            checks.number(f"serve: {name}", getattr(self, name), above=0)
        if not self.file_bytes <= self.request_bytes <= self.queue_bytes:
            sizes = f"{self.file_bytes / MB:g}, {self.request_bytes / MB:g} and {self.queue_bytes / MB:g} MB"
            raise OptionError(f"serve: a file must fit into a request, and a request into the queue; found {sizes}")


OPTIONS = {
    "file_bytes": "--max-file-mb",
    "request_bytes": "--max-request-mb",
    "items": "--max-items",
    "queue": "--queue",
    "queue_bytes": "--queue-mb",
    "upload_seconds": "--upload-seconds",
    "read_seconds": "--read-seconds",
    "read_bytes": "--read-mb",
}
"""A limit -> the option of `vitlens serve` that sets it."""


class ChatHost(Protocol):
    """A language model that sees sensors through lenses."""

    streams: Collection[str]
    """The sensors it takes."""

    def answer(
        self, question: str, files: Mapping[str, list[str]], read: Mapping[str, Mapping[str, Any]], **options: Any
    ) -> list[str]:
        """Answers to a question about files (by sensor; `read` are their read options): one, or one for each of several files."""
        ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a service serves, and how."""

    model: str
    """A zoo name, a folder, or a Hub repository."""
    device: str | None = None
    dtype: str = "fp32"
    aliases: tuple[str, ...] = ()
    """Further names that clients may ask for the model by."""
    index: str | Path | None = None
    scene: Path | None = None
    chat: Callable[[], ChatHost] | None = None
    """Opens the model that answers questions about files."""
    examples: tuple[Item, ...] = ()
    """What the page offers to begin with."""
    batch_size: int = 32
    """Items that go through the model at once, at most."""
    readers: int = 2
    """Processes that read and preprocess files."""
    tokens: frozenset[str] = frozenset()
    """Bearer tokens that are accepted; none: everybody is."""
    hosts: tuple[str, ...] = ()
    """Hosts that http(s) addresses in requests may name; `*.example.org` stands for what is below example.org."""
    origins: tuple[str, ...] = ()
    """Origins whose pages may use the service from a browser (CORS)."""
    names: tuple[str, ...] = ()
    """Names that requests may call this host by; none: any."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        checks.whole("serve: batch_size", self.batch_size, least=1)
        checks.whole("serve: readers", self.readers, least=1)
        checks.one_of("serve: dtype", self.dtype, ("fp32", "bf16", "fp16", "auto"))

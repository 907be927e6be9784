"""What a client sent, one thing after the other: a text, a file, an address to fetch, or an embedding that it already has."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from vitlens.serve.refusals import invalid, too_large
from vitlens.serve.settings import MB, Limits

DATA = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
TAKEN = "a data: URI, or an http(s) address of an allowed host"


@dataclass(frozen=True)
class File:
    """A file's content, and what was said of it: its name, MIME type and format."""

    content: bytes = field(repr=False)
    name: str = ""
    kind: str = ""
    format: str = ""


@dataclass(frozen=True)
class Address:
    """An http(s) address whose content is wanted."""

    url: str
    format: str = ""


@dataclass(frozen=True)
class Given:
    """One thing to embed. `where` is its place in the request, as refusals name it."""

    modality: str
    """"" where the service is to find out."""
    where: str
    content: str | File | Address | np.ndarray
    """Text, a file, an address, or an embedding [E]."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Read options; where the modality is to be found out, {modality: read options}."""
    beside: tuple[File, ...] = ()
    """Files that this one names: a header's data, a scene's buffers."""
    weight: float = 1.0

    @property
    def name(self) -> str:
        """How errors call it."""
        known = self.content.name if isinstance(self.content, File) else ""
        return f"{self.where} ({known})" if known else self.where


def located(text: Any, where: str, limits: Limits, *, format: str = "", bare: bool = False) -> File | Address:
    """The file behind a data: URI, or the address to fetch; with `bare` base64 alone is taken, too.

    Raises:
        Refusal: anything else, paths and file: addresses among them; a content above the limit.
    """
    if not isinstance(text, str) or not text:
        raise invalid(f"{where}: {_shown(text)}; expected {TAKEN}", where)
    if match := DATA.match(text):
        return _data(text, match, where, limits, format)
    if re.match(r"https?://", text, re.IGNORECASE):
        return Address(text, format)
    scheme = re.match(r"([a-z][a-z0-9+.-]*):", text, re.IGNORECASE)
    if scheme or not bare:
        what = f"the scheme {scheme[1]!r} is not taken" if scheme else f"{_shown(text)} is none"
        raise invalid(f"{where}: {what}; expected {TAKEN}: files of the server are never opened for a client", where)
    return File(decoded(text, where, limits), format=format)


def _data(text: str, match: re.Match[str], where: str, limits: Limits, format: str) -> File:
    options = [option.strip() for option in match[2].split(";")]
    name = next((unquote_to_bytes(o[5:]).decode("utf-8", "replace") for o in options if o.lower().startswith("name=")), "")
    payload = text[match.end() :]
    if "base64" in [option.lower() for option in options]:
        content = decoded(payload, where, limits)
    else:
        content = unquote_to_bytes(payload)
        check_size(len(content), where, limits)
    return File(content, name, match[1].strip().lower(), format)


def decoded(text: str, where: str, limits: Limits) -> bytes:
    """Base64, of the usual or the URL alphabet, as bytes.

    Raises:
        Refusal: not base64, nothing, or more than a file may have.
    """
    check_size(len(text) * 3 // 4, where, limits)
    plain = re.sub(r"\s+", "", unquote_to_bytes(text).decode("latin-1") if "%" in text else text)
    plain = plain.translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        content = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{where}: not base64 ({error}); files of the server are never opened for a client", where) from error
    if not content:
        raise invalid(f"{where}: an empty file", where, code="unreadable_input")
    return content


def check_size(size: int, where: str, limits: Limits) -> None:
    """Refuse a file of `size` bytes above the limit."""
    if size > limits.file_bytes:
        raise too_large(where, f"a file of {size / MB:.1f} MB", "file_bytes", limits, where)


def _shown(value: Any) -> str:
    return repr(value[:60]) if isinstance(value, str) else f"a {type(value).__name__}"

"""Damage to a file's bytes, as disks, networks, cut transfers and hostile hands do it; the same for the same seed."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import numpy as np

EXTREMES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE]
HEAD = 512
"""Half of the places are among the first so many bytes: headers are small, and most depends on them."""

Damage = Callable[[bytearray, int, np.random.Generator], None]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with one to four damages."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if changed:
            limit = min(len(changed), HEAD) if rng.random() < 0.5 else len(changed)
            DAMAGES[int(rng.integers(len(DAMAGES)))](changed, int(rng.integers(limit)), rng)
    return bytes(changed)


def _flip(content: bytearray, at: int, rng: np.random.Generator) -> None:
    content[at] ^= 1 << int(rng.integers(8))


def _byte(content: bytearray, at: int, rng: np.random.Generator) -> None:
    content[at] = int(rng.integers(256))


def _extreme(content: bytearray, at: int, rng: np.random.Generator) -> None:
    value = struct.pack("<I" if rng.random() < 0.5 else ">I", EXTREMES[int(rng.integers(len(EXTREMES)))])
    content[at : at + 4] = value[: len(content) - at]


def _number(content: bytearray, at: int, rng: np.random.Generator) -> None:
    """A number that is written in digits becomes another: huge, zero, negative, or no number."""
    found = list(re.finditer(rb"\d+", bytes(content[:4096])))
    if found:
        place = found[int(rng.integers(len(found)))]
        words = [b"0", b"-1", b"99999999999", b"1e308", b"nan", b"1", b"4294967295"]
        content[place.start() : place.end()] = words[int(rng.integers(len(words)))]


def _cut(content: bytearray, at: int, rng: np.random.Generator) -> None:
    del content[at:]


def _hole(content: bytearray, at: int, rng: np.random.Generator) -> None:
    del content[at : at + int(rng.integers(1, 64))]


def _zeros(content: bytearray, at: int, rng: np.random.Generator) -> None:
    count = min(int(rng.integers(1, 256)), len(content) - at)
    content[at : at + count] = bytes(count)


def _twice(content: bytearray, at: int, rng: np.random.Generator) -> None:
    part = bytes(content[at : at + int(rng.integers(1, 256))])
    content[at:at] = part


def _noise(content: bytearray, at: int, rng: np.random.Generator) -> None:
    count = min(int(rng.integers(1, 32)), len(content) - at)
    content[at : at + count] = rng.bytes(count)


DAMAGES: list[Damage] = [_flip, _flip, _byte, _extreme, _number, _cut, _hole, _zeros, _twice, _noise]

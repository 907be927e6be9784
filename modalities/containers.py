"""Containers of moving pictures and sound, opened by FFmpeg; and whether one is whole, which FFmpeg does not say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vitlens.sources import utf8_path

MOVING = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
SOUNDING = f"{MOVING},asf,aac,amr,amrnb,amrwb,mp3,flac,wav"
"""What FFmpeg may take a file for. Its other formats include playlists, which open further files and addresses."""
BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"mfra", b"free", b"skip", b"wide", b"uuid", b"meta")
"""Top-level parts of an MP4 or MOV."""
ASF, ASF_FILE = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""What a WMA file, and its part that says its size, begin with."""


@contextmanager
def opened(path: Path, formats: str) -> Iterator[Any]:
    """The file `path` as a container of one of `formats`."""
    import av

    options = {"format_whitelist": formats, "protocol_whitelist": "file"}
    with utf8_path(path) as there, av.open(there, options=options) as container:
        yield container


def kinds(container: Any) -> str:
    """What kinds of streams a container has, in words."""
    return " and ".join(sorted({str(stream.type) for stream in container.streams}) or ["nothing"])


def missing_bytes(path: Path) -> int:
    """How many bytes a file says it has beyond its end, at least; 0 when it is whole or does not say.

    FFmpeg reads a file that was cut off as a shorter one, and the cut picture of a GIF as a picture.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"\x1aE\xdf\xa3":
            end = _end_of_matroska(file, size)
        elif head[:3] == b"GIF":
            end = _end_of_gif(file, size)
        elif head == ASF[:12]:
            end = _end_of_asf(file)
        else:
            end = _end_of_boxes(file, size)
    return max(0, end - size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """End of the top-level boxes of an MP4 (size, type) or of the RIFF chunks of an AVI (type, size)."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        if head[:4] == b"RIFF":
            length = int.from_bytes(head[4:8], "little")
            if length in (0, 0xFFFFFFFF):  # never filled in: written to a pipe
                return size
            end += 8 + length + length % 2
        elif head[4:8] in BOXES:
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length == 0:  # "to the end of the file"
                return size
            end += max(length, 8)
        else:
            break
    return end


def _end_of_asf(file: BinaryIO) -> int:
    """The size of the file by its own properties, which a live stream leaves at 0."""
    head = file.read(1 << 16)
    at = head.find(ASF_FILE)
    return int.from_bytes(head[at + 40 : at + 48], "little") if at > 0 else 0


def _end_of_matroska(file: BinaryIO, size: int) -> int:
    """End of the segment, which holds everything but the first header."""

    def element() -> int | None:
        identifier = file.read(1)
        file.read(8 - identifier[0].bit_length() if identifier and identifier[0] else 0)
        first = (file.read(1) or b"\xff")[0]
        more = 8 - first.bit_length()
        length = int.from_bytes(bytes([first & (0x7F >> more)]) + file.read(more), "big")
        return None if length == (1 << 7 * (more + 1)) - 1 else length  # all ones: written live, length not known

    header = element()
    end = file.tell() + (header or 0)
    if end > size:  # no place that can be looked for
        return end
    file.seek(end)
    segment = element()
    return 0 if header is None or segment is None else file.tell() + segment


def _end_of_gif(file: BinaryIO, size: int) -> int:
    """End of the blocks, trailer included; past `size` when they stop before their trailer."""
    head = file.read(13)

    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    file.seek(table(head[10]) if len(head) == 13 else 0, 1)
    while kind := file.read(1):
        if kind == b";":
            return file.tell()
        if kind == b",":
            descriptor = file.read(9)
            file.seek((table(descriptor[8]) if len(descriptor) == 9 else 0) + 1, 1)
        elif kind == b"!":
            file.seek(1, 1)
        else:
            return size  # bytes after the pictures that no decoder looks at
        while length := (file.read(1) or b"\0")[0]:
            file.seek(length, 1)
    return max(file.tell(), size + 1)

"""Of what type a file is that came without a name: by what the client says, else by how its content begins.

Readers want the usual extension of a file. Whether the content is sound they find out themselves; nothing here decides it.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence

from vitlens.sources import suffix_of

HEAD = 512
"""Bytes of a content that are looked at."""
_BEGINNINGS: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (rb"\x89PNG", ("png",)),
    (rb"\xff\xd8\xff", ("jpg",)),
    (rb"GIF8", ("gif",)),
    (rb"BM.{4}\0\0\0\0", ("bmp",)),
    (rb"II[*+]\0|MM\0[*+]", ("tiff", "tif")),
    (rb"RIFF.{4}WEBP", ("webp",)),
    (rb"(RIFF|RF64).{4}WAVE", ("wav",)),
    (rb"RIFF.{4}AVI ", ("avi",)),
    (rb".{4}ftypavi[fs]", ("avif",)),
    (rb".{4}ftypM4A", ("m4a", "mp4")),
    (rb".{4}ftypqt  ", ("mov", "mp4")),
    (rb".{4}ftyp", ("mp4", "m4a")),
    (rb"\x1aE\xdf\xa3", ("mkv", "webm", "mka")),
    (rb"fLaC", ("flac",)),
    (rb"OggS", ("ogg",)),
    (rb"ID3|\xff[\xe2-\xfb]", ("mp3",)),
    (rb"FORM.{4}AIF", ("aiff", "aif")),
    (rb"caff", ("caf",)),
    (rb"\.snd", ("au",)),
    (rb"\x93NUMPY", ("npy",)),
    (rb"PK\x03\x04", ("npz",)),
    (rb"v/1\x01", ("exr",)),
    (rb"P[25]\s", ("pgm",)),
    (rb"P[36]\s", ("ppm",)),
    (rb"P[fF]\s", ("pfm",)),
    (rb"ply\s", ("ply",)),
    (rb"(# ?\.PCD|VERSION [.0-9])", ("pcd",)),
    (rb"LASF", ("las", "laz")),
    (rb"glTF", ("glb",)),
    (rb"\s*\{", ("gltf",)),
    (rb"(ST|C|N)*OFF\s", ("off",)),
    (rb"solid ", ("stl",)),
    (rb"(#[^\n]*\n|\s|mtllib [^\n]*\n|o [^\n]*\n)*v ", ("obj",)),
    (rb"0 {7}", ("edf",)),
    (rb"\xffBIOSEMI", ("bdf",)),
    (rb"\s*Brain Vision Data Exchange|\xef\xbb\xbfBrain Vision", ("vhdr",)),
    (rb"MATLAB 5\.0|MATLAB 7\.3", ("set",)),
    (rb"\0\0\0\x64\0\0\0\x1f", ("fif",)),
    (rb"\s*-?[0-9]", ("xyz", "txt", "csv")),
)


def suffix_for(content: bytes, *, name: str = "", kind: str = "", said: str = "", extensions: Sequence[str] = ()) -> str:
    """The extension that `content` should get on disk, without a dot; "" where nothing tells.

    `said` is what the client calls its format, `name` its file's name, `kind` its MIME type; `extensions` are those that the
    sensor reads (none: any).
    """
    wanted = said.lower().lstrip(".")
    if re.fullmatch(r"[a-z0-9]{1,8}", wanted):
        return wanted

    def fits(suffix: str) -> bool:
        return bool(re.fullmatch(r"[a-z0-9]{1,8}", suffix)) and (not extensions or suffix in extensions)

    named = suffix_of(name)
    begins = [kind for start, kinds in _BEGINNINGS if re.match(start, content[:HEAD], re.DOTALL) for kind in kinds]
    subtype = kind.partition("/")[2].removeprefix("x-").removeprefix("vnd.")
    mimes = [subtype, *(guess.lstrip(".") for guess in mimetypes.guess_all_extensions(kind))] if kind else []
    found = [suffix for suffix in (named, *begins, *mimes) if fits(suffix)]
    return found[0] if found else extensions[0] if len(extensions) == 1 else ""


def safe_name(name: str) -> str:
    """The last part of a file name of a client's, with nothing in it that could lead out of a folder or hide a file."""
    last = re.split(r"[\\/]", name)[-1]
    kept = re.sub(r"[^\w. +()@=,-]", "_", last).strip(" .")
    return kept[-120:].lstrip(".")

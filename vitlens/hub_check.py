"""Is a file on this machine the one that the Hub has? Its size and its sum, beside the Hub's own.

The Hub names a large file by its sha256, a small one by git's sum. The Hugging Face cache keeps that name: a downloaded file is a
link to a blob that is called so, which needs no network to compare with. Of a file that lies elsewhere the Hub is asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitlens.errors import CheckpointError, InputError
from vitlens.hub import HubFile, facts_of, unreachable

CHUNK = 1 << 24
SHA256, GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Verdict:
    """Whether a file is what it should be, and the words for it."""

    state: Literal["ok", "damaged", "unknown"]
    text: str


def check_file(path: Path, source: HubFile | None = None, sha256: str | None = None) -> Verdict:
    """Compare a file with the `sha256` of its card, its blob in the Hugging Face cache, or what the Hub says of `source`."""
    if not path.is_file():
        return Verdict("damaged", "the file is not there, or is a link to nothing")
    size = path.stat().st_size
    expected, owner = sha256 or sum_in_cache(path), "the card's" if sha256 else "the Hub's"
    hub_sum, hub_size, silence = _of_hub(source)
    expected = expected or hub_sum
    if expected is None:
        return Verdict("unknown", f"{size:,} bytes, nothing to compare with: {silence}")
    if hub_size is not None and hub_sum == expected and size != hub_size:
        return Verdict("damaged", f"size {size:,} bytes, the Hub's is {hub_size:,}")
    found = _sum_like(path, expected)
    if found is None:
        return Verdict("unknown", f"{size:,} bytes, the Hub's name for it is no sum of a known kind ({expected[:40]})")
    kind = "sha256" if SHA256.fullmatch(expected) else "sum (git's)"
    if found != expected:
        return Verdict("damaged", f"{kind} differs: {found[:16]}..., {owner} is {expected[:16]}...")
    newer = hub_sum is not None and hub_sum != expected
    return Verdict("ok", f"{kind} is {owner}" + (", which has another version of it by now" if newer else ""))


def sum_in_cache(path: Path) -> str | None:
    """What the Hub calls a file that lies in the Hugging Face cache: the name of the blob that it is a link to."""
    if not path.is_symlink():
        return None
    blob = path.readlink()  # one step: the blob may be a link itself, to a store that several caches share
    name = blob.name
    return name if blob.parent.name == "blobs" and (SHA256.fullmatch(name) or GIT.fullmatch(name)) else None


def _of_hub(source: HubFile | None) -> tuple[str | None, int | None, str]:
    """(sum, size) of a file as the Hub says, and else why they are not known."""
    from huggingface_hub import constants

    if source is None:
        return None, None, "it does not come from the Hub"
    if constants.HF_HUB_OFFLINE:
        return None, None, "HF_HUB_OFFLINE is set"
    if unreachable() is not None:
        return None, None, "the Hub cannot be reached"
    try:
        _, facts = facts_of(source)
    except Exception as error:
        return None, None, f"the Hub does not say ({' '.join(str(error).split())[:200]})"
    return facts.etag, facts.size, "the Hub gives no sum"


def _sum_like(path: Path, expected: str) -> str | None:
    """The sum of a file of the same kind as `expected`; None for an unknown kind."""
    if SHA256.fullmatch(expected):
        digest = hashlib.sha256()
    elif GIT.fullmatch(expected):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return None
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def told_of_damage(files: Sequence[tuple[Path, HubFile | None]], again: str, sha256: str | None = None) -> Iterator[None]:
    """Around what reads downloaded files: where it cannot, say if one is damaged, what to delete, or how to fetch it `again`.

    Raises:
        CheckpointError: what was raised inside, with that behind it.
    """
    try:
        yield
    except (CheckpointError, InputError) as error:
        verdicts = [(path, check_file(path, source, sha256)) for path, source in files if _is_download(path, source)]
        damaged = [
            f"{path.name}: {verdict.text}: delete {path.resolve()}" for path, verdict in verdicts if verdict.state == "damaged"
        ]
        if damaged:
            again = again if any(sum_in_cache(path) for path, _ in verdicts) else "put a whole copy there"
            raise CheckpointError(f"{error}; the download is damaged ({'; '.join(damaged)}, or {again})") from error
        if not verdicts:
            raise
        told = "; ".join(f"{path.name}: {verdict.text}" for path, verdict in verdicts)
        raise CheckpointError(f"{error}; {told}") from error


def _is_download(path: Path, source: HubFile | None) -> bool:
    """Whether a file is the Hub's by its place or its name: of another that the user gave nothing is known."""
    return source is not None and (sum_in_cache(path) is not None or path.name in source.names)

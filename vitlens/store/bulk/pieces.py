"""A listing cut into pieces, what of a piece is on disk, and the list of all pieces on disk while a job runs.

part-00042.parquet              what was embedded of piece 42; none where nothing could be
errors/part-00042.parquet       what was not, and why; none where all was
_pieces/part-00042.json         its receipt, written last: of which items, by which weights, and how large the two files are
"""

from __future__ import annotations

import hashlib
import json
import pickle
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from vitlens.errors import InputError
from vitlens.modality import Modality, get_modality
from vitlens.sources import is_path
from vitlens.store.blobs import Blob, RemoteFile, remote_file
from vitlens.store.digests import DIGEST, stat_key
from vitlens.store.items import Failure, Item
from vitlens.store.places import Folder

PIECES = "_pieces"
ERRORS = "errors"
ROW_BYTES = 40
"""Of a row beside its vector and name, roughly: position, digest, modality."""
CONNECTIONS = 16
"""Objects of a store that one process asks for at once."""


@dataclass(frozen=True)
class Piece:
    """Some items that follow each other, and what their listing says: names, places, options and versions, as a hash."""

    number: int
    entries: tuple[Item | Failure, ...]
    listing: str

    @property
    def name(self) -> str:
        return piece_name(self.number)

    @property
    def items(self) -> list[Item]:
        """Those to embed."""
        return [entry for entry in self.entries if isinstance(entry, Item)]

    @property
    def modalities(self) -> list[str]:
        """Of its items, sorted."""
        return sorted({item.modality for item in self.items})


@dataclass(frozen=True)
class Receipt:
    """What a piece became. It is done when its listing and weights are those of the receipt and its files are there."""

    piece: int
    listing: str
    content: str
    """A hash of positions, names and contents of the items."""
    weights: dict[str, str]
    """Of each modality, a hash of what its embeddings are made by: weights, preprocessing, precision."""
    towers: dict[str, str]
    """Of each modality, the hash of the weights alone."""
    space: tuple[str, int]
    """Name and width of the space; the width is 0 where nothing was there to embed."""
    embedded: dict[str, int]
    """How many of each modality."""
    errors: int
    sizes: tuple[int, int]
    """Bytes of the part and of its table of errors; 0: there is none."""
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    """The first things that readers had to say of items that they read."""
    remarked: int = 0

    @classmethod
    def read(cls, folder: Folder, name: str) -> Receipt | None:
        """The receipt of a piece; None where there is none, or one that cannot be read."""
        content = folder.read(f"{PIECES}/{name}.json")
        try:
            values = json.loads(content or b"null")
            return cls(**{**values, **{key: tuple(values[key]) for key in ("sizes", "remarks", "space")}})
        except (ValueError, TypeError, KeyError):
            return None

    def write(self, folder: Folder) -> None:
        """Put it there: from now on the piece is done."""
        folder.write(f"{PIECES}/{piece_name(self.piece)}.json", json.dumps(asdict(self)).encode())


def piece_name(number: int) -> str:
    """`part-00042`."""
    return f"part-{number:05d}"


def number_of(file: str) -> int | None:
    """The piece whose file this is, by its name."""
    stem, _, kind = file.partition(".")
    digits = stem.removeprefix("part-")
    return int(digits) if digits.isdigit() and len(digits) >= 5 and kind in ("parquet", "json") else None


def cut(entries: Iterable[Item | Failure], size: int) -> Iterator[Piece]:
    """The pieces of a listing: `size` items each, the last one what is left."""
    stream = iter(entries)
    number = 0
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        while some := tuple(islice(stream, size)):
            looked_at = _with_versions(some, pool)
            yield Piece(number, looked_at, _listing(looked_at))
            number += 1


def _with_versions(entries: tuple[Item | Failure, ...], pool: ThreadPoolExecutor) -> tuple[Item | Failure, ...]:
    """The entries, with the versions of objects that a manifest names."""

    def look(entry: Item | Failure) -> Item | Failure:
        if not isinstance(entry, Item) or not isinstance(entry.source, RemoteFile) or entry.source.size >= 0:
            return entry
        try:
            return replace(entry, source=remote_file(entry.source.uri))
        except InputError as error:
            return Failure.of(entry.row, entry.name, entry.modality, error)

    remote = any(isinstance(entry, Item) and isinstance(entry.source, RemoteFile) for entry in entries)
    return tuple(pool.map(look, entries)) if remote else entries


def _listing(entries: Iterable[Item | Failure]) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST)
    sensors: dict[str, Modality] = {}
    for entry in entries:
        if isinstance(entry, Item):
            if entry.modality not in sensors:
                sensors[entry.modality] = get_modality(entry.modality)
            sensor = sensors[entry.modality]
            about: Any = [entry.row, entry.name, entry.modality, dict(entry.options), _version(entry, sensor)]
        else:
            about = [entry.row, entry.name, entry.modality, entry.error]
        digest.update(json.dumps(about, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _version(item: Item, sensor: Modality) -> str:
    """What changes when an item does, without reading it."""
    if isinstance(item.source, Blob):
        return item.source.stat_key()
    if not is_path(item.source) or (isinstance(item.source, str) and sensor.tower == "text"):
        return str(item.source)
    try:
        return "\0".join(map(stat_key, [Path(item.source), *sensor.companions(Path(item.source))]))
    except OSError as error:
        return f"not there: {error.strerror}"


@dataclass
class Counts:
    """How much a listing is."""

    pieces: int = 0
    items: dict[str, int] = field(default_factory=dict)
    """Of each modality."""
    failures: int = 0
    name_bytes: int = 0

    def add(self, piece: Piece) -> None:
        self.pieces += 1
        for entry in piece.entries:
            if isinstance(entry, Item):
                self.items[entry.modality] = self.items.get(entry.modality, 0) + 1
                self.name_bytes += len(entry.name)
            else:
                self.failures += 1

    @property
    def total(self) -> int:
        """Items, and inputs known to be bad."""
        return sum(self.items.values()) + self.failures

    def size(self, dim: int) -> int:
        """Bytes on disk, roughly, of embeddings of `dim` values: vectors hardly shrink, names do."""
        return sum(self.items.values()) * (4 * dim + ROW_BYTES) + self.name_bytes // 2


class Spool:
    """All pieces of a job, one after the other in a temporary file: looked for once, and never all in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the job runs
        self.counts = Counts()

    def add(self, piece: Piece) -> None:
        """Keep a piece behind the others."""
        content = zlib.compress(pickle.dumps(piece, protocol=pickle.HIGHEST_PROTOCOL), 1)
        self._file.write(len(content).to_bytes(8, "little") + content)
        self.counts.add(piece)

    def __iter__(self) -> Iterator[Piece]:
        self._file.seek(0)
        while head := self._file.read(8):
            yield pickle.loads(zlib.decompress(self._file.read(int.from_bytes(head, "little"))))

    def close(self) -> None:
        """Forget them."""
        self._file.close()

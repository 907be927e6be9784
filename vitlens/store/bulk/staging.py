"""What is no file on a local disk becomes one while it is worked on: fetched once, for its digest and for its reader."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitlens.errors import InputError
from vitlens.modality import Modality
from vitlens.sources import suffix_of
from vitlens.store.blobs import Blob, RemoteFile
from vitlens.store.bulk.pieces import CONNECTIONS
from vitlens.store.items import Item
from vitlens.store.places import located, reaching

CHUNK = 256
"""Items that lie on the local disk at a time, rounded up to whole batches."""


def chunks(items: Sequence[Item], batch_size: int) -> Iterator[Sequence[Item]]:
    """Items in whole batches: as many as are fetched at once, or all where nothing is fetched."""
    fetched = any(isinstance(item.source, Blob) for item in items)
    size = -(-CHUNK // batch_size) * batch_size if fetched else max(len(items), 1)
    return (items[at : at + size] for at in range(0, len(items), size))


@contextmanager
def staged(items: Sequence[Item], sensor: Modality, options: Mapping[str, Any]) -> Iterator[list[Item | InputError]]:
    """The items, with a local file as the source of each, or why it cannot be had.

    Raises:
        OSError: the network or the store fails.
    """
    with tempfile.TemporaryDirectory(prefix="vitlens-") as folder:

        def stage(place: int, item: Item) -> Item | InputError:
            if not isinstance(item.source, Blob):
                return item
            try:
                return replace(item, source=_fetched(item.source, Path(folder, str(place)), sensor, {**options, **item.options}))
            except InputError as error:
                return error

        if any(isinstance(item.source, Blob) for item in items):
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                yield list(pool.map(stage, range(len(items)), items))
        else:
            yield list(items)


def without_copies(text: str) -> str:
    """A message without the folders of our copies, which are nothing to the user."""
    return re.sub(re.escape(tempfile.gettempdir()) + r"/vitlens-\w+/\d+/", "", text)


def _fetched(blob: Blob, folder: Path, sensor: Modality, options: Mapping[str, Any]) -> Path:
    """A local file of its name in `folder`, and beside it those that belong to it."""
    folder.mkdir()
    name = blob.file_name.rpartition("/")[2]
    kind = options.get("format")
    path = folder / (name if suffix_of(name) or not kind else f"{name}.{kind}")
    path.write_bytes(blob.content())
    if isinstance(blob, RemoteFile) and type(sensor).companions is not Modality.companions:
        _fetch_beside(blob, folder)
    return path


def _fetch_beside(blob: RemoteFile, folder: Path) -> None:
    """The objects of the same stem: a header's data, a mesh's materials."""
    system, inside = located(blob.uri)
    parent, _, name = inside.rpartition("/")
    with reaching(blob.uri):
        for other in system.glob(f"{parent}/{name.partition('.')[0]}.*"):
            if not (folder / other.rpartition("/")[2]).exists():
                (folder / other.rpartition("/")[2]).write_bytes(system.cat_file(other))

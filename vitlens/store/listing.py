"""Which items a command works on - files, folders, patterns, shards, texts, or the rows of a manifest - as a stream.

A listing can be walked any number of times, gives the same items in the same order, and never holds them all.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from vitlens.errors import InputError, OptionError, UnclaimedError
from vitlens.modality import guess_modality, importable_modalities, list_modalities, modality_class
from vitlens.read_options import check_read_option, typed_read_option
from vitlens.sources import decoding, suffix_of
from vitlens.store.blobs import Blob, Cell, RemoteFile, remote_file
from vitlens.store.items import Failure, Item
from vitlens.store.manifest import MANIFEST, manifest_columns, manifest_rows
from vitlens.store.places import is_uri
from vitlens.store.shards import Member, expand_shards, shard_samples
from vitlens.store.walk import Seen, files_of
from vitlens.store.windows import Cutting

KNOWN = "files of a known modality, see `vitlens modalities`"


@dataclass
class Listing:
    """The items that files, folders, patterns (`"**"` goes into folders), shards, texts or one manifest name, in that order.

    `modalities` is the modality of the files (exactly one; none: each file's is guessed), or the columns to take of a manifest.

    Raises:
        OptionError: nothing named, or things that exclude each other.
        ModalityError: an unknown modality.
    """

    inputs: Sequence[str] = ()
    texts: Sequence[str] = ()
    manifest: str | os.PathLike[str] | None = None
    modalities: Sequence[str] = ()
    with_columns: bool = False
    """Whether items keep what a manifest's other columns say of them."""
    notes: list[str] = field(default_factory=list)
    """Remarks for the user, once it was walked."""
    cutting: Cutting = field(default_factory=Cutting)
    """How long recordings become windows; they keep the row of the recording."""

    def __post_init__(self) -> None:
        for name in self.modalities:
            modality_class(name)
        if self.manifest is not None:
            if self.inputs or self.texts:
                raise OptionError("a manifest names all items: give either --manifest or files and texts")
        elif len(self.modalities) > 1:
            names = ", ".join(self.modalities)
            raise OptionError(f"--as takes one modality for all files, found {names}; use --manifest to mix them")
        elif not self.inputs and not self.texts:
            raise OptionError("nothing to read: give files, folders or quoted patterns")

    def __iter__(self) -> Iterator[Item | Failure]:
        """Items, and inputs that are known to be bad, by their rows.

        Raises:
            InputError: a pattern without files, nothing but inputs of no clear modality, an unreadable manifest.
        """
        self.notes.clear()
        if self.manifest is None:
            walk = _Arguments(self).walk()
        else:
            table = os.fspath(self.manifest)
            walk = _Rows(table if is_uri(table) else Path(table), self).walk()
        return chain.from_iterable((one,) if isinstance(one, Failure) else self.cutting(one) for one in walk)


@dataclass
class _Arguments:
    """One walk over what was named on a command line."""

    listing: Listing
    row: int = 0
    items: int = 0
    passed: list[str] = field(default_factory=list)
    """The first of those passed over."""
    passed_over: int = 0
    doubtful: InputError | None = None
    """The first input of no clear modality."""
    doubts: int = 0

    def walk(self) -> Iterator[Item | Failure]:
        for entry, named in self._entries():
            yield from self._file(entry, named) if named is not None else self._shard(entry)
        texts = self.listing.texts
        if self.doubtful and not self.items and not texts:
            more = f" ({self.doubts} files are of no clear modality)" if self.doubts > 1 else ""
            raise InputError(self.doubtful.source, self.doubtful.found + more, self.doubtful.accepted)
        if self.passed_over and not self.row and not texts:
            what = f"no {self._modality} file" if self._modality else "no file that a modality reads"
            raise InputError(", ".join(self.listing.inputs), f"{what} among {self.passed_over}", KNOWN)
        yield from (Item(self.row + place, text, "text", text) for place, text in enumerate(texts))
        if self.passed_over:
            dots = " ..." * (self.passed_over > len(self.passed))
            self.listing.notes.append(f"{self.passed_over} other files passed over: {', '.join(self.passed)}{dots}")

    @property
    def _modality(self) -> str | None:
        return self.listing.modalities[0] if self.listing.modalities else None

    def _entries(self) -> Iterator[tuple[Any, bool | None]]:
        """(file, whether the user named this very one; or shard, None), each once."""
        inputs = list(dict.fromkeys(self.listing.inputs))
        shards = {given: expand_shards(given) for given in inputs if suffix_of(given) == "tar"}
        groups = {given: files_of(given) for given in inputs if given not in shards}
        named = {given for given, found in groups.items() if found is None}
        seen = Seen() if len(inputs) > 1 and len(named) < len(inputs) else None
        for given in inputs:
            found = shards[given] if given in shards else groups[given]
            for entry in [given] if found is None else found:
                path = entry.uri if isinstance(entry, RemoteFile) else str(entry)
                if seen is None or seen.add(path):
                    yield entry, None if given in shards else path in named

    def _file(self, entry: str | RemoteFile, named: bool) -> Iterator[Item | Failure]:
        path, row = entry if isinstance(entry, str) else entry.uri, self.row
        try:
            if isinstance(entry, str) and is_uri(entry):
                entry = remote_file(entry)
        except InputError as error:
            yield Failure(row, path, "", error.found)
            self.row += 1
            return
        if isinstance(entry, str) and (os.path.isdir(entry) or (not self._modality and not os.path.exists(entry))):
            yield Failure(row, path, "", "a folder that cannot be opened" if os.path.isdir(entry) else "no such file")
            self.row += 1
            return
        try:
            found = _modality_of(entry, named, self._modality)
        except InputError as error:
            self.doubtful, self.doubts = self.doubtful or error, self.doubts + 1
            yield Failure.of(row, path, "", error)
            self.row += 1
            return
        if found:
            self.items += 1
            self.row += 1
            yield Item(row, path, found, Path(entry) if isinstance(entry, str) else entry)
        else:
            self._pass_over(path)

    def _shard(self, shard: str | Path) -> Iterator[Item | Failure]:
        """The samples of a shard are rows; their members of the modality, or those whose type tells one, are the items.

        What comes behind a place where it cannot be read is one failure.
        """
        try:
            for key, members in shard_samples(shard.absolute() if isinstance(shard, Path) else shard):
                yield from self._sample(f"{shard}/{key}", key, members)
        except InputError as error:
            yield Failure.of(self.row, str(shard), "", error)
            self.row += 1

    def _sample(self, name: str, key: str, members: Mapping[str, Member]) -> Iterator[Item | Failure]:
        try:
            chosen = self._members(members)
            if not chosen:
                self._pass_over(name)
                return
            own = {modality: _own_options(modality, _options_of(members.get("json"))) for modality in chosen}
            where = name.removesuffix(key)
            found = [Item(self.row, f"{where}{one.name}", modality, one, own[modality]) for modality, one in chosen.items()]
        except (InputError, OptionError) as error:
            yield Failure.of(self.row, name, "", error)
        else:
            self.items += len(found)
            yield from found
        self.row += 1

    def _members(self, members: Mapping[str, Member]) -> dict[str, Member]:
        """The member of each modality: one that bears its name (`key.depth.npy`), else the only one that is of it.

        Raises:
            InputError: several are.
        """
        classes = {self._modality: modality_class(self._modality)} if self._modality else importable_modalities()
        named: dict[str, Member] = {}
        found: dict[str, list[Member]] = {}
        for kind, member in members.items():
            head, suffix = kind.partition(".")[0], kind.rpartition(".")[2]
            fitting = [name for name, cls in classes.items() if suffix in cls.extensions]
            if head in classes:
                named[head] = member
            elif fitting:
                name = fitting[0] if len(fitting) == 1 else _guessed(member)
                found[name] = [*found.get(name, ()), member]
        for name, several in found.items():
            if len(several) > 1 and name not in named:
                shown = ", ".join(member.name for member in several)
                raise InputError(shown, f"{len(several)} members that may be {name}", f"one of them, or one called KEY.{name}.*")
        return {name: several[0] for name, several in found.items()} | named

    def _pass_over(self, name: str) -> None:
        self.passed_over += 1
        self.passed += [name] * (len(self.passed) < 3)


def _options_of(member: Member | None) -> dict[str, Any]:
    """What the .json of a shard's sample says."""
    if member is None:
        return {}
    with decoding(member.file_name, "a JSON object"):
        return dict(json.loads(member.content()))


def _own_options(modality: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Of a row's values `modality.option` those that its reader has."""
    known = modality_class(modality).read_options()
    named = {key.partition(".")[2]: value for key, value in row.items() if key.partition(".")[0] == modality}
    return {key: typed_read_option(modality, key, value) for key, value in named.items() if key in known and not _empty(value)}


def _modality_of(entry: str | RemoteFile, named: bool, modality: str | None) -> str | None:
    """The modality of a file; None for one that nobody named (it lay in a folder or matched a pattern) and that is not meant.

    Raises:
        InputError: a file that several modalities claim, or none although it was named or is of a type that some read.
    """
    path = entry if isinstance(entry, str) else entry.uri
    suffix = suffix_of(path)
    if modality:
        cls = modality_class(modality)
        # A damaged file may not look like its modality any more; its reader says what is wrong with it.
        meant = named or suffix in cls.extensions or (isinstance(entry, str) and cls().claims(Path(path)) > 0)
        return modality if meant else None
    try:
        return guess_modality(path) if isinstance(entry, str) else _guessed(entry)
    except InputError as error:
        found, unclaimed = error.found, isinstance(error, UnclaimedError)
        readers = [name for name, cls in importable_modalities().items() if suffix in cls.extensions]
        if unclaimed and not readers and not named:
            return None
        if unclaimed and readers:
            found = f"its content is not that of a .{suffix} file of {' or '.join(readers)}"
        raise InputError(path, found, "a file of one modality; --as MODALITY says which") from error


def _guessed(blob: Blob) -> str:
    """`guess_modality` of what is no local file: by its type where one modality has that, else by its content.

    Raises:
        InputError: no modality, or more than one, claims it.
    """
    name = blob.file_name.rpartition("/")[2]
    fitting = [known for known, cls in importable_modalities().items() if suffix_of(name) in cls.extensions]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UnclaimedError(name, f"no modality reads .{suffix_of(name)} files", "; ".join(list_modalities()))
    with tempfile.TemporaryDirectory(prefix="vitlens-") as folder:
        copy = Path(folder) / f"blob.{suffix_of(name)}"
        copy.write_bytes(blob.content())
        return guess_modality(copy)


@dataclass
class _Rows:
    """One walk over the rows of a manifest."""

    path: str | Path
    listing: Listing

    def walk(self) -> Iterator[Item | Failure]:
        columns = manifest_columns(self.path)
        known = list_modalities()
        named = [column for column in columns if column in known]
        wanted = list(self.listing.modalities) or named
        if not columns or not wanted or not {*wanted} <= {*named}:
            self._refuse(columns, named, known)
        options = self._option_columns(columns, wanted)
        used = {*wanted, *(column for pairs in options.values() for column, _ in pairs)}
        others = [column for column in columns if column not in used and column.partition(".")[0] not in known]
        kept = others if self.listing.with_columns else []
        vision = [name for name in wanted if modality_class(name).tower != "text"]
        first: Failure | None = None
        items = rows = 0
        for number, row in enumerate(manifest_rows(self.path, vision)):
            rows += 1
            for modality in wanted:
                if _empty(row.get(modality)):
                    continue
                try:
                    item = self._item(number, modality, row, options[modality])
                except (InputError, OptionError) as error:
                    failure = Failure.of(number, str(row[modality]), modality, error)
                    first = first or failure
                    yield failure
                else:
                    items += 1
                    yield replace(item, columns={name: row.get(name) for name in kept}) if kept else item
        if not rows:
            raise InputError(os.fspath(self.path), "no rows", MANIFEST)
        if first and not items:
            raise replace(first, name=f"{self.path}, row {first.row}").to_error(MANIFEST)
        if not items:
            raise InputError(os.fspath(self.path), f"every cell of {', '.join(wanted)} is empty", MANIFEST)
        if others and not kept:
            self.listing.notes.append(f"columns not used: {', '.join(others)}")

    def _refuse(self, columns: Sequence[str], named: Sequence[str], known: Sequence[str]) -> None:
        """Raises InputError for a table without the columns it needs."""
        if next(iter(manifest_rows(self.path)), None) is None:
            raise InputError(os.fspath(self.path), "no rows", MANIFEST)
        for name in self.listing.modalities:
            if name not in named:
                raise InputError(os.fspath(self.path), f"no column {name!r} (its columns: {', '.join(columns)})", MANIFEST)
        raise InputError(os.fspath(self.path), f"no column of a modality among {', '.join(columns) or 'none'}", ", ".join(known))

    def _item(self, number: int, modality: str, row: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> Item:
        """A cell of row `number` with its read options, which are in the `columns` (column, option).

        Raises:
            InputError: a cell that is no path.
            OptionError: a read option with a value that it cannot have.
        """
        cell = row[modality]
        filled = [(column, option) for column, option in columns if not _empty(row.get(column))]
        own = {option: typed_read_option(modality, option, row[column]) for column, option in filled}
        if modality_class(modality).tower == "text":
            return Item(number, str(cell), modality, str(cell), own)
        if isinstance(cell, Cell):
            return Item(number, f"{self.path}/{number}/{modality}", modality, cell, own)
        if not isinstance(cell, str):
            raise InputError(f"{self.path}, row {number}", f"a {type(cell).__name__} in column {modality}", "a path")
        if is_uri(cell):
            return Item(number, cell, modality, RemoteFile(cell), own)
        if isinstance(self.path, Path):
            return Item(number, cell, modality, self.path.parent / cell, own)
        if cell.startswith("/"):
            raise InputError(cell, f"a path of a local disk in {self.path}", "an address, or a path relative to the manifest")
        return Item(number, cell, modality, RemoteFile(f"{self.path.rpartition('/')[0]}/{cell}"), own)

    def _option_columns(self, columns: Sequence[str], wanted: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
        """Per modality, (column, read option) of its columns "modality.option"."""
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in wanted}
        for column in columns:
            modality, dot, option = column.partition(".")
            if dot and modality in found:
                check_read_option(modality, option, f"{self.path}, column {column}")
                found[modality].append((column, option))
        return found


def _empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))

"""Which items a command works on: files, folders, patterns, texts, or the rows of a manifest."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitlens.errors import InputError, OptionError, UnclaimedError
from vitlens.modality import guess_modality, importable_modalities, list_modalities, modality_class
from vitlens.read_options import check_read_option, typed_read_option
from vitlens.sources import suffix_of
from vitlens.store.files import holds_embeddings
from vitlens.store.items import Failure, Inputs, Item
from vitlens.store.manifest import MANIFEST, read_manifest


def gather(
    inputs: Sequence[str] = (),
    *,
    texts: Sequence[str] = (),
    manifest: str | os.PathLike[str] | None = None,
    modalities: Sequence[str] = (),
) -> Inputs:
    """The items that files, folders, patterns (`"**"` goes into folders), texts or one manifest name, in that order.

    `modalities` is the modality of the files (exactly one; none: each file's is guessed), or the columns to take of a manifest.

    Raises:
        OptionError: nothing named, or things that exclude each other.
        InputError: a pattern without files, nothing but inputs of no clear modality, an unreadable manifest.
        ModalityError: an unknown modality.
    """
    for name in modalities:
        modality_class(name)
    if manifest is not None:
        if inputs or texts:
            raise OptionError("a manifest names all items: give either --manifest or files and texts")
        return _from_manifest(Path(manifest), modalities)
    if len(modalities) > 1:
        raise OptionError(f"--as takes one modality for all files, found {', '.join(modalities)}; use --manifest to mix them")
    if not inputs and not texts:
        raise OptionError("nothing to read: give files, folders or quoted patterns")
    return _from_arguments(inputs, texts, modalities[0] if modalities else None)


def _from_arguments(inputs: Sequence[str], texts: Sequence[str], modality: str | None) -> Inputs:
    items: list[Item] = []
    failures: list[Failure] = []
    doubtful: list[InputError] = []
    passed: list[str] = []
    for path, named in dict(_files(inputs)).items():
        row = len(items) + len(failures)
        if not modality and not os.path.exists(path):
            failures.append(Failure(row, path, "", "no such file"))
            continue
        try:
            found = _modality_of(path, named, modality)
        except InputError as error:
            doubtful.append(error)
            failures.append(Failure.of(row, path, "", error))
            continue
        if found:
            items.append(Item(row, path, found, Path(path)))
        else:
            passed.append(path)
    if doubtful and not items and not texts:
        more = f" ({len(doubtful)} files are of no clear modality)" if len(doubtful) > 1 else ""
        raise InputError(doubtful[0].source, doubtful[0].found + more, doubtful[0].accepted)
    if passed and not items and not failures:
        what = f"no {modality} file" if modality else "no file that a modality reads"
        raise InputError(", ".join(inputs), f"{what} among {len(passed)}", "files of a known modality, see `vitlens modalities`")
    first = len(items) + len(failures)
    items += [Item(first + place, text, "text", text) for place, text in enumerate(texts)]
    notes = (f"{len(passed)} other files passed over: {', '.join(passed[:3])}{' ...' * (len(passed) > 3)}",) if passed else ()
    return Inputs(tuple(items), tuple(failures), notes)


def _modality_of(path: str, named: bool, modality: str | None) -> str | None:
    """The modality of a file; None for one that nobody named (it lay in a folder or matched a pattern) and that is not meant.

    Raises:
        InputError: a file that several modalities claim, or none although it was named or is of a type that some read.
    """
    if modality:
        cls = modality_class(modality)
        # A damaged file may not look like its modality any more; its reader says what is wrong with it.
        return modality if named or suffix_of(path) in cls.extensions or cls().claims(Path(path)) > 0 else None
    try:
        return guess_modality(path)
    except InputError as error:
        found, unclaimed = error.found, isinstance(error, UnclaimedError)
        readers = [name for name, cls in importable_modalities().items() if suffix_of(path) in cls.extensions]
        if unclaimed and not readers and not named:
            return None
        if unclaimed and readers:
            found = f"its content is not that of a .{suffix_of(path)} file of {' or '.join(readers)}"
        raise InputError(path, found, "a file of one modality; --as MODALITY says which") from error


def _files(inputs: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """(path, whether the user named this very file); patterns and folders give their files sorted.

    Raises:
        InputError: a pattern or folder without files.
    """
    for given in inputs:
        if os.path.isdir(given):
            found = sorted(_walk(given))
        elif glob.has_magic(given) and not os.path.lexists(given):
            found = sorted(path for path in glob.glob(given, recursive=True) if not os.path.isdir(path))
        else:
            yield given, True
            continue
        found = [path for path in found if not _ours(path)]
        if not found:
            raise InputError(given, "no files there", "files, folders, or quoted patterns such as 'sounds/**/*.flac'")
        yield from ((path, False) for path in found)


def _ours(path: str) -> bool:
    """Whether a file nobody named is an earlier output: stored embeddings, or a part of an unfinished job."""
    return ".partial" in (part[-8:] for part in Path(path).parts) or holds_embeddings(path)


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))


def _from_manifest(path: Path, modalities: Sequence[str]) -> Inputs:
    table = read_manifest(path)
    columns = list(dict.fromkeys(key for row in table for key in row))
    known = list_modalities()
    named = [column for column in columns if column in known]
    for name in modalities:
        if name not in named:
            raise InputError(os.fspath(path), f"no column {name!r} (its columns: {', '.join(columns)})", MANIFEST)
    wanted = list(modalities) or named
    if not wanted:
        raise InputError(os.fspath(path), f"no column of a modality among {', '.join(columns) or 'none'}", ", ".join(known))
    options = _option_columns(path, columns, wanted)
    items: list[Item] = []
    failures: list[Failure] = []
    for number, row in enumerate(table):
        for modality in wanted:
            if _empty(row.get(modality)):
                continue
            try:
                items.append(_manifest_item(path, number, modality, row, options[modality]))
            except (InputError, OptionError) as error:
                failures.append(Failure.of(number, str(row[modality]), modality, error))
    if failures and not items:
        raise replace(failures[0], name=f"{path}, row {failures[0].row}").to_error(MANIFEST)
    if not items:
        raise InputError(os.fspath(path), f"every cell of {', '.join(wanted)} is empty", MANIFEST)
    used = {*wanted, *(column for pairs in options.values() for column, _ in pairs)}
    ignored = [column for column in columns if column not in used and column.partition(".")[0] not in known]
    notes = (f"columns not used: {', '.join(ignored)}",) if ignored else ()
    return Inputs(tuple(items), tuple(failures), notes)


def _manifest_item(path: Path, number: int, modality: str, row: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> Item:
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
    if not isinstance(cell, str):
        raise InputError(f"{path}, row {number}", f"a {type(cell).__name__} in column {modality}", "a path")
    return Item(number, cell, modality, path.parent / cell, own)


def _option_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Per modality, (column, read option) of its columns "modality.option"."""
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in wanted}
    for column in columns:
        modality, dot, option = column.partition(".")
        if dot and modality in found:
            check_read_option(modality, option, f"{path}, column {column}")
            found[modality].append((column, option))
    return found


def _empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))

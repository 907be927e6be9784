"""`vitlens eval TABLE.csv --label COLUMN`: a labelled table of the user's own, measured as a dataset is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitlens.benchmarks.datasets import Dataset, DatasetCard, DatasetItem, Problem
from vitlens.benchmarks.evaluation.run import Found, Settings, spread
from vitlens.errors import InputError, OptionError
from vitlens.modality import list_modalities, modality_class
from vitlens.sources import suffix_of
from vitlens.store.items import Failure, Item
from vitlens.store.listing import Listing
from vitlens.store.manifest import MANIFEST, MANIFEST_TYPES, manifest_columns
from vitlens.zeroshot import DEFAULT_TEMPLATES

ALL = "all"
"""The one split of a table."""


def is_table(suite: str) -> bool:
    """Whether what is to be evaluated is a file, not the name of a dataset."""
    return suffix_of(suite) in MANIFEST_TYPES


class TableDataset(Dataset):
    """The rows of one table that have a label; the classes are the labels that occur."""

    def __init__(self, table: Path, modality: str, listed: Sequence[DatasetItem]) -> None:
        self.listed = list(listed)
        self.card = DatasetCard(  # type: ignore[misc]  # each table has its own
            name=f"{table.stem}-{modality}",
            title=table.name,
            task="classification",
            modality=modality,
            splits={ALL: None},
            default_split=ALL,
            licence="the owner's",
            source=str(table),
            layout=table.name,
        )

    def check(self, root: Path) -> list[Problem]:
        """Nothing: the table is read when it is found."""
        return []

    def items(self, root: Path, split: str) -> Sequence[DatasetItem]:
        """The labelled rows, in the table's order."""
        self.checked(split)
        return self.listed

    def classes(self, split: str) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({label for item in self.listed for label in item.labels}))

    def prompts(self, split: str) -> tuple[str, ...]:
        """Those of `vitlens classify`."""
        return DEFAULT_TEMPLATES


def find_table(table: Path, label: str, modality: str | None, settings: Settings) -> Found:
    """The labelled rows of a table with a column per modality and one with labels; no file of a row is opened.

    Raises:
        InputError: no such table, or one without the columns, labels or rows it needs.
        OptionError: a probe (there is nothing to train on), several sensors and none chosen.
    """
    if settings.task != "zero-shot":
        raise OptionError(f"{table}: a table of one's own is measured zero-shot only; there is no training split")
    columns = manifest_columns(table)
    if label in list_modalities():
        raise InputError(
            str(table), f"column {label!r} holds what {label} is made from", "--label COLUMN, a column with class names"
        )
    if label not in columns:
        raise InputError(str(table), f"no column {label!r} with labels (its columns: {', '.join(columns)})", "--label COLUMN")
    sensor = modality or _only_sensor(table, columns)
    notes: list[str] = []
    items: list[DatasetItem] = []
    unlabelled = 0
    for one in Listing(manifest=table, modalities=[sensor], with_columns=True):
        if isinstance(one, Failure):
            if settings.on_error == "raise":
                raise one.to_error(MANIFEST)
            notes.append(f"row {one.row} is left out: {one.error}")
            continue
        cell = one.columns.get(label)
        if cell in (None, ""):
            unlabelled += 1
        else:
            items.append(_item(one, cell))
    dataset = TableDataset(table, sensor, items)
    split = dataset.checked(settings.split or ALL)
    if len(dataset.classes(split)) < 2:
        raise InputError(
            str(table), f"column {label!r} names {len(dataset.classes(split))} classes", "labels of two classes or more"
        )
    if unlabelled:
        notes.append(f"{unlabelled} rows without a label are left out")
    return Found(dataset, table.parent, split, spread(items, settings.limit), len(items), notes)


def _item(one: Item, label: Any) -> DatasetItem:
    return DatasetItem(f"row {one.row}: {one.name}", {one.modality: one.value}, (str(label),))


def _only_sensor(table: Path, columns: Sequence[str]) -> str:
    """The one modality, text aside, that has a column."""
    known = [name for name in columns if name in list_modalities() and modality_class(name).tower != "text"]
    if len(known) == 1:
        return known[0]
    if not known:
        raise InputError(str(table), f"no column of a sensor (its columns: {', '.join(columns)})", ", ".join(list_modalities()))
    raise OptionError(f"{table}: columns of {', '.join(known)}: say which is measured with --as")

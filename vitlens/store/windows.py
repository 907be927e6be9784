"""Items cut into windows: a long recording becomes many items, each called by its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitlens.errors import InputError, OptionError
from vitlens.modality import Modality, get_modality
from vitlens.store.items import Failure, Item

OPTION = "windows"
"""The read option that says how an item is cut."""


@dataclass(frozen=True)
class Cutting:
    """How items are cut: by the read option `windows` of their own, or of all items of their modality."""

    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Read options by modality."""
    reading: Callable[[str], Modality] = get_modality
    """The modality of a name: it knows how long its windows are."""

    def reads(self) -> dict[str, dict[str, Any]]:
        """The read options that are left for the windows."""
        left = {name: {key: value for key, value in own.items() if key != OPTION} for name, own in self.options.items()}
        return {name: own for name, own in left.items() if own}

    def __call__(self, item: Item) -> Iterator[Item | Failure]:
        """The windows of an item, or the item where it is not cut."""
        options = {**self.options.get(item.modality, {}), **item.options}
        if options.get(OPTION) is None:
            yield item
            return
        how = options.pop(OPTION)
        own = {key: value for key, value in item.options.items() if key != OPTION}
        value = replace(item, options={}).value
        try:
            found = self.reading(item.modality).windows(value, how, **options)
        except (InputError, OptionError) as error:
            yield Failure.of(item.row, item.name, item.modality, error)
            return
        for name, window in found.items():
            yield replace(item, name=f"{item.name}#{name}", options={**own, **window})

"""Which items a command line names, all at once: what commands need that look at few."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vitlens.errors import ModelError
from vitlens.modality import Modality
from vitlens.read_options import parse_read_options
from vitlens.store.items import Failure, Inputs, Item
from vitlens.store.listing import Listing
from vitlens.store.windows import Cutting


def gather(
    inputs: Sequence[str] = (),
    *,
    texts: Sequence[str] = (),
    manifest: str | os.PathLike[str] | None = None,
    modalities: Sequence[str] = (),
    with_columns: bool = False,
    cutting: Cutting | None = None,
) -> Inputs:
    """The items of a `Listing`, and what of it is known to be bad; `with_columns` keeps what a manifest says of them besides.

    `cutting` makes windows of long recordings.

    Raises:
        OptionError, InputError, ModalityError: as `Listing`.
    """
    listing = Listing(inputs, texts, manifest, modalities, with_columns, cutting=cutting or Cutting())
    found = list(listing)
    items = tuple(one for one in found if isinstance(one, Item))
    return Inputs(items, tuple(one for one in found if isinstance(one, Failure)), tuple(listing.notes))


def cutting_for(read_option: Sequence[str] | None, modalities: Sequence[str] | None, model: str) -> Cutting:
    """How items are read, by the texts of `--read`, and recordings cut: into windows as long as `model` has them.

    Of a model that is only on the Hub they are as long as usual. Options without a modality are of the one in `modalities`.

    Raises:
        OptionError: as `parse_read_options`.
    """
    options = parse_read_options(read_option or (), modalities[0] if modalities and len(modalities) == 1 else None)

    def reading(name: str) -> Modality:
        from vitlens.zoo import find_modality

        try:
            return find_modality(name, model)
        except ModelError:
            return find_modality(name)

    return Cutting(options, reading)

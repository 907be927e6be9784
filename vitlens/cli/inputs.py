"""Which items a command line names, all at once: what commands need that look at few."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vitlens.store.items import Failure, Inputs, Item
from vitlens.store.listing import Listing


def gather(
    inputs: Sequence[str] = (),
    *,
    texts: Sequence[str] = (),
    manifest: str | os.PathLike[str] | None = None,
    modalities: Sequence[str] = (),
    with_columns: bool = False,
) -> Inputs:
    """The items of a `Listing`, and what of it is known to be bad; `with_columns` keeps what a manifest says of them besides.

    Raises:
        OptionError, InputError, ModalityError: as `Listing`.
    """
    listing = Listing(inputs, texts, manifest, modalities, with_columns)
    found = list(listing)
    items = tuple(one for one in found if isinstance(one, Item))
    return Inputs(items, tuple(one for one in found if isinstance(one, Failure)), tuple(listing.notes))

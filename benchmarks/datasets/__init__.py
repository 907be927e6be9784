"""The field's datasets: one file each with a reader, and a card in cards/ (what it is, where it comes from, published scores).

for card in list_datasets(): print(card.name, card.task)
items = get_dataset("esc50").items(root, "fold1")
"""

from __future__ import annotations

from vitlens.benchmarks.datasets.card import DatasetCard, Published
from vitlens.benchmarks.datasets.dataset import (
    Dataset,
    DatasetItem,
    Problem,
    get_dataset,
    list_datasets,
    register_dataset,
)

__all__ = ["Dataset", "DatasetCard", "DatasetItem", "Problem", "Published", "get_dataset", "list_datasets", "register_dataset"]

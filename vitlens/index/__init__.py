"""The vector index: embeddings of any sensor on disk, found again by any other. `Index` is the way in."""

from __future__ import annotations

from vitlens.index.index import Index
from vitlens.index.query import Answer, Hit, Term
from vitlens.index.rows import Added, Rows

__all__ = ["Added", "Answer", "Hit", "Index", "Rows", "Term"]

"""ImageBind's `SimpleTokenizer`: CLIP's byte pairs, and rows of token ids as the model behind the drop-in takes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from open_clip import tokenizer
from torch import Tensor

from vitlens.errors import ModelError
from vitlens.imagebind.by_hand import BPE_PATH
from vitlens.imagebind.chosen import current
from vitlens.modality import get_modality


class SimpleTokenizer(tokenizer.SimpleTokenizer):
    """CLIP's tokenizer, with ImageBind's habits: called with one text it gives one row.

    `encode` and `decode` are CLIP's own. A call prepares for the model made last, as the loaders do, since a small model may know
    fewer words.

    Raises:
        ModelError: no file `bpe_path`.
    """

    def __init__(self, bpe_path: str | os.PathLike[str] = BPE_PATH, context_length: int | None = None) -> None:
        if not Path(bpe_path).is_file():
            raise ModelError(f"no file {os.fspath(bpe_path)} with byte pairs: data.return_bpe_path() gives the one that is here")
        super().__init__(os.fspath(bpe_path), context_length=context_length or 77)
        self._asked = context_length

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Token ids int64 [context_length] of one text, or [n, context_length] of several; a long text keeps its end token.

        Where no `context_length` is asked for, here or of the tokenizer, it is the model's: 77 for all that come of CLIP.
        """
        words = current().modality("text")
        if length := context_length or self._asked:
            words = get_modality("text", **{**words.options(), "context_length": length})
        rows = [words.transform(words.load(text)) for text in ([texts] if isinstance(texts, str) else texts)]
        return rows[0] if len(rows) == 1 else torch.stack(rows)

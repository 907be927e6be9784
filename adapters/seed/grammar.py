"""SEED's image tokens in a language model's vocabulary, and the grammar that keeps every generated image whole.

An image is `<img>`, 32 codes `<img_00000>` ..., `</img>`. Which ids these have is read from the tokenizer, never assumed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitlens.errors import HostError, MissingDependencyError

try:
    from transformers import LogitsProcessor
except ImportError as error:
    raise MissingDependencyError("SEED-LLaMA needs transformers: pip install 'vitlens[mllm]'") from error

BEGIN, END, CODE = "<img>", "</img>", "<img_{:05d}>"
TOKENS = re.compile(r"</?img>|<img_\d{5}>")
_CODE = re.compile(r"<img_\d{5}>")


@dataclass(frozen=True)
class ImageVocabulary:
    """Ids of the image tokens: codes from `first` on, one after the other; `size` is one more than the vocabulary's last id."""

    first: int
    codes: int
    begin: int
    end: int
    length: int
    size: int
    others: tuple[int, ...] = ()
    """Ids of further codes that the tokenizer has and the quantizer has not."""

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, *, codes: int, length: int = 32) -> ImageVocabulary:
        """Look the ids of `codes` codes up; an image holds `length` of them.

        Raises:
            HostError: a tokenizer without image tokens, with too few of them, or with codes that do not follow each other.
        """
        ids = tokenizer.get_vocab()
        missing = [token for token in (BEGIN, END, CODE.format(0)) if token not in ids]
        if missing:
            raise HostError(
                f"the tokenizer {_name(tokenizer)} has no image tokens ({', '.join(missing)} missing): take a SEED-LLaMA's, "
                "such as AILab-CVC/seed-tokenizer-2, or add them with add_image_tokens(tokenizer, model)"
            )
        known = next((code for code in range(codes) if CODE.format(code) not in ids), codes)
        if known < codes:
            raise HostError(
                f"the quantizer has {codes} codes, the tokenizer {_name(tokenizer)} image tokens for {known} only: "
                "take the tokenizer that was made with this quantizer"
            )
        first = ids[CODE.format(0)]
        stray = next((code for code in range(codes) if ids[CODE.format(code)] != first + code), None)
        if stray is not None:
            token = CODE.format(stray)
            raise HostError(
                f"the tokenizer {_name(tokenizer)} gives {token} the id {ids[token]}, {first + stray} is needed: codes in one row"
            )
        others = sorted(index for token, index in ids.items() if _CODE.fullmatch(token) and not 0 <= index - first < codes)
        return cls(first, codes, ids[BEGIN], ids[END], length, max(ids.values()) + 1, tuple(others))

    def text(self, codes: Tensor | Sequence[int]) -> str:
        """The tokens of an image [32], begin and end included."""
        return BEGIN + "".join(CODE.format(int(code)) for code in codes) + END

    def ids(self, codes: Tensor | Sequence[int]) -> list[int]:
        """The ids of an image [32], begin and end included."""
        return [self.begin, *(self.first + int(code) for code in codes), self.end]

    def split(self, ids: Sequence[int]) -> list[list[int] | Tensor]:
        """Ids as runs of text ids and codes [32] of images, in order.

        Raises:
            HostError: an image that is cut off or of another length, or image tokens outside an image.
        """
        parts: list[list[int] | Tensor] = []
        place = 0
        while place < len(ids):
            if ids[place] == self.begin:
                image = list(ids[place + 1 : place + self.length + 2])
                if len(image) <= self.length or image[-1] != self.end or not all(map(self._is_code, image[:-1])):
                    raise HostError(f"ids: the image at position {place} is not {self.length} codes between {BEGIN} and {END}")
                parts.append(torch.tensor(image[:-1]) - self.first)
                place += self.length + 2
                continue
            if ids[place] == self.end or self._is_code(ids[place]):
                raise HostError(f"ids: image token {ids[place]} at position {place} stands outside an image")
            if not parts or isinstance(parts[-1], Tensor):
                parts.append([])
            parts[-1].append(int(ids[place]))  # type: ignore[union-attr]
            place += 1
        return parts

    def _is_code(self, token: int) -> bool:
        return self.first <= token < self.first + self.codes


class ImageGrammar(LogitsProcessor):
    """After `<img>` exactly 32 codes and `</img>`, elsewhere none of them; no image is begun that `max_new_tokens` would cut off.

    `prompt` is the number of prompt tokens (padding included) and `images` the most images a reply may hold (None: any number);
    a prompt that ends in `<img>` has begun the first. It looks at each row's last tokens only, so it holds for batches, for
    beams, and with images in the prompt.
    """

    def __init__(
        self, vocabulary: ImageVocabulary, *, prompt: int, max_new_tokens: int, images: int | None = None, forced: bool = False
    ) -> None:
        self.vocabulary = vocabulary
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.images = images
        self.forced = forced
        self._table: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        words = self.vocabulary
        left = self.max_new_tokens - (input_ids.shape[1] - self.prompt)
        # A whole image is one token longer than this window: a <img> within it has not met its </img> yet.
        window = input_ids[:, -(words.length + 1) :]
        place = torch.arange(1, window.shape[1] + 1, device=window.device)
        begun = ((window == words.begin) * place).amax(dim=1)  # place of the last <img>, 0: none
        done = window.shape[1] - begun
        inside = begun > 0
        begins = torch.full_like(inside, left >= words.length + 2)
        if self.images is not None:
            new = input_ids[:, self.prompt - self.forced :]
            begins &= (new == words.begin).sum(dim=1) < self.images
        kind = torch.where(inside, torch.where(done < words.length, 2, 3), begins.long())
        if self._table is None or self._table.shape[1] != scores.shape[1] or self._table.device != scores.device:
            self._table = self._refused(scores)
        return scores.masked_fill(self._table[kind], float("-inf"))

    def _refused(self, scores: Tensor) -> Tensor:
        """Four rows of what is not allowed: in text, in text where an image may begin, among the codes, behind the last code."""
        words, ids = self.vocabulary, torch.arange(scores.shape[-1], device=scores.device)
        code = (ids >= words.first) & (ids < words.first + words.codes)
        text_only = code | (ids == words.end) | (ids >= words.size) | (ids == words.begin)
        text_only[[index for index in words.others if index < len(ids)]] = True
        return torch.stack([text_only, text_only & (ids != words.begin), ~code, ids != words.end])


def add_image_tokens(tokenizer: Any, model: Any = None, *, codes: int = 8192) -> int:
    """Give a plain LLaMA tokenizer the image tokens, and `model` embeddings for them; returns how many tokens were new.

    The new embeddings are random: such a model must be trained before its images mean anything.
    """
    from tokenizers import AddedToken

    names = [CODE.format(code) for code in range(codes)] + [BEGIN, END]
    added = int(tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in names]))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if model is not None and model.get_input_embeddings().num_embeddings < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return added


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)

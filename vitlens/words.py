"""Words that a model does not know, and texts that it cannot tell apart: whatever is compared with them is a guess.

A small text tower reads every word outside its vocabulary as one and the same; any text tower does so with what it takes for
spelling (case, spaces) and with what stands behind its last token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

from vitlens.errors import InputError, OptionError
from vitlens.modality import Modality

SHOWN = 5
"""Words, and groups of texts, that a message names."""
MOST = 20_000
"""Texts that are looked at: enough to find what ails a list of captions."""


def unknown_words(modality: Modality, texts: Iterable[Any]) -> str:
    """A sentence that names the words in `texts` which the text modality does not know, with the nearest that it knows; or ""."""
    found: dict[str, list[str]] = {}
    for text in islice(texts, MOST):
        try:
            found |= modality.unknown(modality.load(text))
        except InputError:  # whoever uses the texts says so, and where
            continue
    return said_unknown(found)


def said_unknown(found: Mapping[str, Sequence[str]]) -> str:
    """Words with the nearest known ones as a sentence; empty for none."""
    if not found:
        return ""
    words = [f"{word!r}" + (f" (nearest known: {', '.join(near)})" if near else "") for word, near in found.items()]
    return f"the model does not know {_some(words)}: it reads all words that it does not know as the same one"


def unknown_to(tokenizer: Any, texts: Iterable[str]) -> str:
    """The sentence of `unknown_words` for the texts of a language model with a tokenizer of transformers."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return ""
    vocabulary = tokenizer.get_vocab()
    known = [word for word in vocabulary if word.isalpha() and len(word) > 2] if len(vocabulary) < MOST else []
    found: dict[str, list[str]] = {}
    for word in {word: None for text in texts for word in words_of(text)}:
        if unknown in tokenizer(word, add_special_tokens=False)["input_ids"]:
            found[word] = get_close_matches(word, known, n=3, cutoff=0.5)
    return said_unknown(found)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without signs."""
    return re.findall(r"[^\W_]+", text.lower())


def same_texts(modality: Modality, prompts: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Groups of names whose prompts are the same tokens to the text modality, one by one."""
    groups: dict[bytes, list[str]] = {}
    for name, lines in islice(prompts.items(), MOST):
        tokens = [modality.transform(modality.load(line)).numpy().tobytes() for line in lines]
        groups.setdefault(b"".join(tokens), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def distinct(modality: Modality, texts: Iterable[str]) -> list[str]:
    """The first of all texts that are the same tokens to the text modality, in their order."""
    given = list(dict.fromkeys(texts))
    again = {name for names in same_texts(modality, {text: [text] for text in given}) for name in names[1:]}
    return [text for text in given if text not in again]


def said_same(modality: Modality, prompts: Mapping[str, Sequence[str]], what: str) -> str:
    """A sentence that names the `what` ("labels", "captions") which the model cannot tell apart, and why; empty for none."""
    same = same_texts(modality, prompts)
    if not same:
        return ""
    groups = [_some([repr(name) for name in names], " and ") for names in same]
    why = unknown_words(modality, (line for names in same for name in names for line in prompts[name]))
    return f"{what} that the model cannot tell apart: {_some(groups, '; ')}; {why or 'their tokens are the same'}"


def check_labels(modality: Modality, prompts: Mapping[str, Sequence[str]]) -> None:
    """Refuse labels whose prompts are the same to the text modality.

    Raises:
        OptionError: such labels, by name.
    """
    if same := said_same(modality, prompts, "labels"):
        raise OptionError(f"{same}; take other labels")


def _some(parts: Sequence[str], between: str = ", ") -> str:
    return between.join(parts[:SHOWN]) + (f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else "")

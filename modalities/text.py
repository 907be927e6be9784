"""Text: words to the token ids of the CLIP text tower."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vitlens import checks
from vitlens.errors import ModelError, OptionError
from vitlens.libraries import load_clip_tokenizer
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

MAX_CHARACTERS = 1 << 20
LIMIT = f"at most {MAX_CHARACTERS} characters"
TOKENIZED_CHARACTERS = 20_000
"""More than any 75 tokens can stand for; the rest of a long text is never looked at."""

_PUNCTUATION = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
_EXAMPLES = (
    "a dog barks while rain falls on a tin roof",
    "a wooden chair next to a round table",
    "a photo of a quiet kitchen in the morning",
    "the sound of waves breaking on the shore",
)


def clean_caption(text: str, max_words: int = 70) -> str:
    """A caption as ViT-Lens's training texts were cleaned (arXiv 2311.16081, released code).

    Lower case; the signs `. ! " ( ) * # : ; ~` become spaces (commas, `?` and `&` stay); spaces are squeezed; at most
    `max_words` words.
    """
    return " ".join(text.lower().translate(_PUNCTUATION).split()[:max_words])


@register_modality
@dataclass(frozen=True, kw_only=True)
class Text(Modality):
    """Words as CLIP's byte-pair tokens (arXiv 2103.00020), start and end token included.

    `clean` applies `clean_caption` first: the released one-stop model does so, its zero-shot evaluation does not. Another
    `tokenizer` than "clip" is an open_clip model name ("ViT-B-16-SigLIP") or "hf-hub:org/repo"; those may need the network
    the first time.

    `vocabulary` keeps only these ids of the tokenizer, for a small text tower that was trained on few words: 0 stays 0 (what
    fills a row), the ids become 2, 3, ... in rising order, so that the end token keeps the largest, and all others become 1.
    """

    clean: bool = False
    context_length: int = 77
    tokenizer: str = "clip"
    vocabulary: Sequence[int] | None = None

    name: ClassVar[str] = "text"
    unit: ClassVar[str] = "words, str"
    accepts: ClassVar[str] = "a text (str), or a UTF-8 .txt file given as pathlib.Path or opened in binary mode"
    extensions: ClassVar[tuple[str, ...]] = ("txt",)
    tower = "text"

    def __post_init__(self) -> None:
        checks.flag("text: clean", self.clean)
        checks.whole("text: context_length", self.context_length, least=3, most=8192)
        if not isinstance(self.tokenizer, str) or not self.tokenizer:
            raise OptionError(f"text: tokenizer must be 'clip' or an open_clip model name, found {self.tokenizer!r}")
        if self.vocabulary is not None:
            whole = all(isinstance(i, int) and not isinstance(i, bool) and i > 0 for i in self.vocabulary)
            if not whole or not self.vocabulary or list(self.vocabulary) != sorted(set(self.vocabulary)):
                raise OptionError("text: vocabulary must be rising token ids above 0")
            object.__setattr__(self, "vocabulary", tuple(self.vocabulary))

    def read(self, source: Any, *, format: str | None = None) -> Sample:
        """Take a str as the text itself (it may be empty); read a `pathlib.Path` or a binary file object as a UTF-8 .txt file.

        Raises:
            InputError: neither of these, no UTF-8, a null character, or more than a million characters.
        """
        given = Source(source, self.accepts, _quoted(source) if isinstance(source, str) else "")
        if isinstance(source, str):
            return Sample(_checked(source, given), given.name)
        if not given.is_path and not hasattr(source, "read") and not isinstance(source, bytes):
            raise given.refuse(f"a {type(source).__name__}, not a text")
        with given.local_file(extensions=self.extensions, format=format) as path:
            if path.stat().st_size > 4 * MAX_CHARACTERS:
                raise given.refuse(f"a file of {path.stat().st_size} bytes", LIMIT)
            content = path.read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise given.refuse(f"not UTF-8 (byte {error.start})") from error
        return Sample(_checked(text, given), given.name)

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Token ids int64 `[context_length]`: start, words, end, zeros. Long text is cut, its end token kept.

        Raises:
            OptionError: unknown tokenizer.
            ModelError: a tokenizer that is not on this machine and cannot be fetched.
        """
        import torch

        text = " ".join(self._words(sample).split())[:TOKENIZED_CHARACTERS]
        ids = _tokenizer(self.tokenizer)(text, context_length=self.context_length)[0].to(torch.int64)
        return ids if self.vocabulary is None else compact_ids(ids, self.vocabulary)

    def _words(self, sample: Sample) -> str:
        return clean_caption(sample.data) if self.clean else str(sample.data)

    def unknown(self, sample: Sample) -> dict[str, list[str]]:
        """Words that a small `vocabulary` does not have, each with known ones that are spelt much alike."""
        if self.vocabulary is None:
            return {}
        words = dict.fromkeys(re.findall(r"[^\W_]+", self._words(sample)[:TOKENIZED_CHARACTERS].lower()))
        return {word: near for word in words if (near := _near(word, self.tokenizer, tuple(self.vocabulary))) is not None}

    def example(self, seed: int = 0) -> Sample:
        """One of a few captions."""
        text = _EXAMPLES[seed % len(_EXAMPLES)]
        return Sample(text, _quoted(text))

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a UTF-8 .txt file."""
        path = Path(folder) / f"{stem}.txt"
        path.write_bytes(sample.data.encode("utf-8"))
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        words, unknown = self._words(sample), self.unknown(sample)
        length = f"{len(words.split())} words, {len(words)} characters"
        said = {"unknown words": ", ".join(unknown)} if unknown else {}
        return {"text": textwrap.shorten(words, 200, placeholder=" ..."), "length": length, **said}

    def steps(self) -> list[str]:
        clean = ["lower the case, drop punctuation but commas and question marks, keep 70 words"] if self.clean else []
        tokenizer = "CLIP's" if self.tokenizer == "clip" else f"{self.tokenizer}'s"
        return [*clean, f"split into {tokenizer} tokens", f"cut or fill to {self.context_length} token ids, the end token kept"]

    def draw(self, sample: Sample, axes: Axes) -> None:
        lines = textwrap.wrap(sample.data, 36)[:10] or ["(empty text)"]
        axes.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", transform=axes.transAxes)
        axes.axis("off")

    def claims(self, path: Path) -> float:
        """1 for a .txt file with words in it; tables of numbers (point clouds come so) are left to others."""
        if not super().claims(path):
            return 0.0
        try:
            with Path(path).open("rb") as file:
                start = file.read(4096).decode("utf-8", errors="ignore")
        except OSError:
            return 0.0
        return 1.0 if re.search(r"[^\W\d_]{2,}", start.replace("nan", "").replace("inf", "")) else 0.0


def _checked(text: str, source: Source) -> str:
    if len(text) > MAX_CHARACTERS:
        raise source.refuse(f"{len(text)} characters", LIMIT)
    if "\0" in text:
        raise source.refuse("a null character (is this a binary file?)")
    if re.search("[\ud800-\udfff]", text):
        raise source.refuse("half of a character pair (a surrogate), which no text encoding has")
    return str(text)


def compact_ids(ids: Tensor, vocabulary: Sequence[int]) -> Tensor:
    """Token ids as places in `vocabulary` plus 2; 0 stays 0, an id that is not in it becomes 1."""
    import torch

    kept = torch.as_tensor(vocabulary)
    place = torch.searchsorted(kept, ids).clamp(max=len(kept) - 1)
    return torch.where(ids == 0, 0, torch.where(kept[place] == ids, place + 2, 1))


@lru_cache(maxsize=1 << 16)
def _near(word: str, tokenizer: str, vocabulary: tuple[int, ...]) -> list[str] | None:
    """Words of the vocabulary that are spelt like `word`, best first; None where `word` itself is made of its tokens."""
    encode = _tokenizer(tokenizer)
    if not (compact_ids(encode(word)[0], vocabulary) == 1).any():
        return None
    known = [encode.decode([token]).strip() for token in vocabulary]
    return get_close_matches(word, [one for one in known if one.isalpha() and len(one) > 2], n=3, cutoff=0.5)


def _quoted(text: str) -> str:
    return repr(textwrap.shorten(text[:400], 60, placeholder=" ...") if len(text) > 60 else text)


@cache
def _tokenizer(name: str) -> Any:
    """The tokenizer `name`; CLIP's vocabulary comes with open_clip, so that "clip" needs no network."""
    if name == "clip":
        return load_clip_tokenizer().SimpleTokenizer()
    import open_clip

    # open_clip answers an unknown name with CLIP's tokenizer, without a word.
    if ":" not in name and name not in open_clip.list_models():
        raise OptionError(f"text: unknown tokenizer {name!r}; take 'clip', an open_clip model name, or 'hf-hub:org/repo'")
    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the tokenizer {name!r} is not on this machine and could not be fetched: {reason}") from error

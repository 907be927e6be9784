"""Where ImageBind keeps its tokenizer: `from imagebind.models.multimodal_preprocessors import SimpleTokenizer`."""

from vitlens.imagebind.absent import LAYERS, answer
from vitlens.imagebind.tokenizer import SimpleTokenizer as SimpleTokenizer

_OPEN_CLIP = "take it from open_clip.tokenizer, whose byte pairs these are"

__all__ = ["SimpleTokenizer"]

__getattr__ = answer(
    __name__,
    f"only SimpleTokenizer is here; {LAYERS}",
    dict.fromkeys(("bytes_to_unicode", "get_pairs", "basic_clean", "whitespace_clean"), _OPEN_CLIP),
)

"""A video with its sound: the embedding of its pictures and that of its own sound track, made one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vitlens import checks
from vitlens.errors import InputError, OptionError
from vitlens.modality import Modality, Sample
from vitlens.sources import is_array, is_path
from vitlens.space import Embeddings


def checked_share(sound: float, inputs: Mapping[str, Any], normalize: bool) -> float:
    """The share of the sound in a video's embedding, 0 to 1.

    Raises:
        OptionError: no such number, no videos among the inputs, or embeddings that are to stay of any length.
    """
    share = checks.number("sound (its share of a video's embedding)", sound, least=0, most=1)
    if "video" not in inputs:
        raise OptionError(f"sound is for videos, and the inputs are {', '.join(inputs) or 'none'}")
    if not normalize:
        raise OptionError("sound mixes embeddings of length 1: leave normalize=False out")
    return share


def mix_sound(
    found: Embeddings,
    items: Sequence[Any],
    share: float,
    *,
    audio: Modality,
    options: Mapping[str, Any],
    embed: Callable[[Sample], Tensor],
    compose: Callable[[Sequence[Tensor], Sequence[float]], Tensor],
) -> None:
    """Replace each video's row by (1 - share) of its pictures and `share` of its sound, both of length 1, normalised.

    A video without a sound track, with a silent one or with one that cannot be read stays its pictures, with a remark.
    """
    rows = found["video"]
    for place, index in enumerate(found.kept["video"]):
        heard = _heard(items[index], audio, options)
        if isinstance(heard, str):
            found.remarks["video"].append((index, f"its pictures alone: {heard}"))
        else:
            rows[place] = compose([rows[place], embed(heard)], [1 - share, share])


def _heard(item: Any, audio: Modality, options: Mapping[str, Any]) -> Sample | str:
    """The sound of a video, or why there is none."""
    source = item["source"] if isinstance(item, Mapping) else item
    given = {"format": item["format"]} if isinstance(item, Mapping) and "format" in item else {}
    if isinstance(source, Sample | list | tuple) or is_array(source):
        return "pictures without a file have no sound"
    if hasattr(source, "seek"):
        source.seek(0)  # its pictures have been read from it
    elif not is_path(source) and not isinstance(source, bytes):
        return "pictures without a file have no sound"
    try:
        heard = audio.load({"source": source, **given, **options})
        audio.transform(heard)
    except InputError as error:
        return f"its sound: {error.found}"
    return heard if abs(heard.data).max() > 0 else "its sound track is silent"

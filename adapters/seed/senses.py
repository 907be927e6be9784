"""From sensed things to SEED codes: pictures, videos, and every sensor that has a lens for the tokenizer's ViT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from vitlens.adapters.lenses import Lenses, check_streams, plugged_in
from vitlens.adapters.running import evaluating, memory
from vitlens.adapters.seed.quantizer import SeedFuse, SeedQuantizer
from vitlens.adapters.splice import LensTokens, Positions
from vitlens.checks import one_of
from vitlens.errors import InputError, OptionError
from vitlens.modality import get_modality
from vitlens.sources import is_array, name_of

ALONE = ("codes", "video")
"""What cannot be joined with other streams: codes are ready, and a video becomes an image for each of its frames."""

Thing = Mapping[str, Any] | Tensor
"""{stream: item}, several streams that see one and the same thing, or codes [32]."""


class Senses:
    """Things -> codes through a quantizer and the lenses plugged into its ViT.

    Streams without a lens are "image", "video" (`video_frames` pictures of it) and "codes". `fuse` says where several streams of
    one thing are joined: before the Q-Former or before the ViT.

    Raises:
        HostError: a lens that does not fit the tokenizer's ViT; `allow_other_vit` overrides the comparison of weights.
        OptionError: a lens under a name that is taken, an unknown `fuse`.
    """

    def __init__(
        self,
        quantizer: SeedQuantizer,
        lenses: Lenses | None = None,
        *,
        fuse: SeedFuse = "qformer",
        positions: Positions = "strict",
        allow_other_vit: bool = False,
        video_frames: int = 4,
    ) -> None:
        one_of("fuse", fuse, get_args(SeedFuse))
        self.quantizer = quantizer
        self.fuse = fuse
        self.tower = quantizer.tower(positions=positions)
        self.lenses = plugged_in(self.tower, lenses, taken=("image", *ALONE), allow_other_vit=allow_other_vit)
        self._video = get_modality("video", frames=video_frames)

    @property
    def streams(self) -> list[str]:
        """Names of what can be sensed."""
        return ["image", *ALONE, *self.lenses]

    @torch.no_grad()
    def codes(self, thing: Thing) -> list[Tensor]:
        """The codes [32] (on the CPU) of a thing; a video gives those of each frame.

        Raises:
            ModalityError: a stream that there is not.
            OptionError: no stream, or streams that cannot be joined.
            InputError: an item that cannot be read, or codes that are none.
            HostError: not enough memory.
        """
        streams = {"codes": thing} if is_array(thing) else self._streams(thing)
        with memory("the SEED tokenizer", "load it with dtype=torch.float16, or keep it on the CPU"):
            if "codes" in streams:
                found = self._ready(streams["codes"])
            elif "video" in streams:
                frames = self._video.load(streams["video"]).data
                found = self.quantizer.encode_image(self.quantizer.preprocess(list(frames)))
            else:
                found = self._fused(streams)
        return list(found.cpu())

    def _streams(self, thing: Any) -> Mapping[str, Any]:
        if not isinstance(thing, Mapping) or not thing:
            accepted = f"{{stream: item}} with one of {', '.join(self.streams)}, or codes as a tensor"
            raise InputError(name_of(thing), "not a thing that was sensed", accepted)
        check_streams(thing, self.streams)
        alone = next((name for name in ALONE if name in thing), None)
        if alone and len(thing) > 1:
            raise OptionError(
                f"{alone} cannot be joined with {', '.join(n for n in thing if n != alone)}: give it as a part of its own"
            )
        return thing

    def _ready(self, codes: Any) -> Tensor:
        """Codes [32], [n, 32], or a list of them, such as a reply's."""
        listed = codes if isinstance(codes, list | tuple) else [codes]
        try:
            rows = torch.cat([torch.atleast_2d(torch.as_tensor(row)).cpu() for row in _rows(listed)])
        except (ValueError, TypeError, RuntimeError) as error:  # of torch: no numbers, or rows of several lengths
            raise InputError(name_of(codes), "not codes", f"whole numbers [{self.quantizer.queries}]") from error
        return self.quantizer.checked(rows)

    def _fused(self, streams: Mapping[str, Any]) -> Tensor:
        if list(streams) == ["image"]:
            return self.quantizer.encode_image(self.quantizer.preprocess([streams["image"]]))
        tokens: dict[str, Tensor | LensTokens] = {}
        for name, item in streams.items():
            for view, one in enumerate(self._tokens(name, item)):
                tokens[f"{name}[{view}]"] = one
        return self.quantizer.encode_streams(tokens, fuse=self.fuse, positions=self.tower.positions)

    def _tokens(self, name: str, item: Any) -> list[LensTokens]:
        if name == "image":
            return [self.tower.image_tokens(self.quantizer.preprocess([item]))]
        stream = self.lenses[name]
        with evaluating(stream):
            return stream(stream.read([item]))


def _rows(listed: Sequence[Any]) -> Sequence[Any]:
    """A list of numbers is one row, a list of rows is several."""
    return listed if listed and all(is_array(row) or isinstance(row, list | tuple) for row in listed) else [listed]

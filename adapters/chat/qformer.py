"""Hosts that look through EVA-g and a Q-Former: what InstructBLIP and BLIP-2 share.

A lens gives what the patch convolution of the host's ViT would have given (ViT-Lens, arXiv 2311.16081); the ViT, the Q-Former and
the language model do the rest, called piece by piece as the host itself calls them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from vitlens.adapters.chat.host import ChatHost, Inputs, Plugging, ReadOptions, naming
from vitlens.adapters.splice import LensTokens
from vitlens.checks import one_of
from vitlens.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack

Fuse = Literal["vit", "qformer", "llm"]
Look = Literal["all", "class_token"]


class QFormerHost(ChatHost):
    """A ViT, a Q-Former and a language model, with lenses; see `ChatHost` for the options that are not named here.

    Several streams become one prompt; `fuse`, an option of every call, says where:

    * "vit": all tokens through the ViT in one pass (one class token), 32 soft tokens.
    * "qformer" (default): a ViT pass per stream, the Q-Former looks at all of them, 32 soft tokens.
    * "llm": ViT and Q-Former per stream, 32 soft tokens each.

    The frames of a video are streams of their own, and so are the clips of a sound.

    `look` says which of the ViT's tokens the Q-Former sees, of all streams or {stream: which}: "all", as the host does, or the
    "class_token" alone. It helps with lenses whose class state is no picture's: the Q-Former looks past it (docs/tokens.md).
    """

    needs = "language_model"
    never_quantised = ("vision_model", "qformer", "language_projection")
    own_options = ("fuse",)

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        image_processor: Any,
        look: Look | Mapping[str, Look] = "all",
        **plugging: Unpack[Plugging],
    ) -> None:
        super().__init__(model, lambda: model.vision_model, tokenizer=tokenizer, image_processor=image_processor, **plugging)
        self._look_at = dict.fromkeys(self.streams, look) if isinstance(look, str) else dict(look)
        for name, which in self._look_at.items():
            if name not in self.streams:
                raise OptionError(f"look: no stream {name!r}; there is {', '.join(self.streams)}")
            one_of("look", which, get_args(Look))

    @classmethod
    def _constructor_options(cls) -> list[str]:
        return [*super()._constructor_options(), "look"]

    def _language(self) -> Any:
        return self.model.language_model

    def soft_tokens(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        *,
        fuse: Fuse = "qformer",
        read_options: ReadOptions | None = None,
    ) -> Tensor:
        """What stands for the inputs in front of the text: [b, queries, H], or [b, queries * streams, H] with `fuse="llm"`.

        Where the Q-Former reads the prompt as well, the same inputs give other soft tokens to another question.
        """
        one_of("fuse", fuse, get_args(Fuse))
        texts, items = self._gather(prompts, inputs)
        if not items:
            raise OptionError(f"nothing to look at: give at least one of {', '.join(self.streams)}")
        streams = self._look(items, len(texts), read_options)
        seen = [self._together(streams)] if fuse == "vit" else [self._alone(name, view) for name, view in _views(streams)]
        seen = seen if fuse == "llm" else [torch.cat(seen, dim=1)]
        return torch.cat([self._projected(vision, texts) for vision in seen], dim=1)

    def _only_class_token(self, name: str) -> bool:
        return self._look_at.get(name) == "class_token"

    def _alone(self, name: str, view: LensTokens) -> Tensor:
        with naming(name):
            seen = self.model.vision_model.post_layernorm(self.tower.hidden(view))
        return seen[:, :1] if self._only_class_token(name) else seen

    def _together(self, streams: Mapping[str, list[LensTokens]]) -> Tensor:
        with naming(" + ".join(streams)):
            hidden = self.tower.hidden_together([view for _, view in _views(streams)])
        counts = [(1, True)] + [(view.x.shape[1], not self._only_class_token(name)) for name, view in _views(streams)]
        kept = torch.cat([torch.full((count,), keep, device=hidden.device) for count, keep in counts])
        return self.model.vision_model.post_layernorm(hidden)[:, kept]

    def _projected(self, vision: Tensor, texts: Sequence[str]) -> Tensor:
        """Q-Former and projection: what the ViT saw [b, n, D] and the prompts -> soft tokens [b, queries, H]."""
        queries = self.model.query_tokens.to(vision.device).expand(len(texts), -1, -1)
        out = self._queried(queries, vision, texts)[:, : queries.shape[1]]
        return self.model.language_projection(out.to(vision.dtype))  # some Q-Formers stay in float32 whatever the host is in

    @abstractmethod
    def _queried(self, queries: Tensor, vision: Tensor, texts: Sequence[str]) -> Tensor:
        """The Q-Former's last hidden state; the queries' come first."""

    def _rows(
        self, prompts: str | Sequence[str], inputs: Inputs, read_options: ReadOptions | None, *, fuse: Fuse = "qformer", **_: Any
    ) -> list[Tensor]:
        """Per sample: soft tokens, then (BOS and) the text, as embeddings [n, H]."""
        texts, _items = self._gather(prompts, inputs)
        soft = self.soft_tokens(texts, inputs, fuse=fuse, read_options=read_options)
        words = [self.language.embed(self.language.ids(text)) for text in texts]
        return [torch.cat([row.to(text.device, text.dtype), text]) for row, text in zip(soft, words, strict=True)]


def nothing_hidden(x: Tensor) -> Tensor:
    """An attention mask [b, n] that hides nothing of embeddings [b, n, D]."""
    return torch.ones(x.shape[:2], dtype=torch.long, device=x.device)


def _views(streams: Mapping[str, list[LensTokens]]) -> list[tuple[str, LensTokens]]:
    return [(name, view) for name, views in streams.items() for view in views]

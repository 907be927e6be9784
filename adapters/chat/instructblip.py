"""InstructBLIP (arXiv 2305.06500) that understands any sensor a lens was trained for, without training InstructBLIP.

    host = InstructBlipAdapter.from_pretrained("Salesforce/instructblip-vicuna-7b", lenses={"point_cloud": lens})
    host.generate("What is this?", {"point_cloud": "chair.ply", "image": "room.jpg"})

A lens gives what the patch convolution of InstructBLIP's ViT would have given (ViT-Lens, arXiv 2311.16081); the ViT, the
Q-Former and the language model do the rest, called piece by piece as the host itself calls them.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from vitlens.adapters.chat.host import ChatHost, Inputs, naming
from vitlens.adapters.generation import check_vocabulary
from vitlens.adapters.host_files import find_host, load_host
from vitlens.adapters.splice import LensStream, LensTokens
from vitlens.errors import HostError, OptionError
from vitlens.model import ViTLens

Fuse = Literal["vit", "qformer", "llm"]
Look = Literal["all", "class_token"]
QFORMER_TOKENS = 128
"""Tokens of the prompt that the Q-Former reads; of a longer one the last."""


class InstructBlipAdapter(ChatHost):
    """An InstructBLIP of transformers (LLaMA/Vicuna or T5) with lenses; see `ChatHost` for the options.

    Several streams become one prompt; `fuse` says where:

    * "vit": all tokens through the ViT in one pass (one class token), 32 soft tokens.
    * "qformer": a ViT pass per stream, the Q-Former looks at all of them, 32 soft tokens.
    * "llm": ViT and Q-Former per stream, 32 soft tokens each.

    The frames of a video are streams of their own, and so are the clips of a sound.

    `look` says which of the ViT's tokens the Q-Former sees, of all streams or {stream: which}: "all", as InstructBLIP does, or
    the "class_token" alone. A lens is trained through the class token: its other tokens need not say what a picture's say.

    Raises:
        HostError: a lens, a tokenizer or a host that do not fit together.
        OptionError: a lens under the name of a built-in stream ("image", "video").
    """

    defaults: Mapping[str, Any] = MappingProxyType(
        {
            "num_beams": 5,
            "do_sample": False,
            "max_new_tokens": 256,
            "min_new_tokens": 1,
            "top_p": 0.9,
            "repetition_penalty": 1.5,
            "length_penalty": 1.0,
        }
    )

    never_quantised: ClassVar[tuple[str, ...]] = ("vision_model", "qformer", "language_projection")
    """Modules that `load_in_8bit` leaves whole: all but the language model."""

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        qformer_tokenizer: Any,
        image_processor: Any,
        lenses: Mapping[str, ViTLens | LensStream | str] | None = None,
        allow_other_vit: bool = False,
        positions: Literal["strict", "interpolate"] = "strict",
        video_frames: int = 8,
        look: Look | Mapping[str, Look] = "all",
    ) -> None:
        found = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if found != "instructblip" or not hasattr(model, "language_model"):
            raise HostError(
                f"transformers' InstructBlipForConditionalGeneration is needed, found {type(model).__name__} ({found})"
            )
        super().__init__(
            model,
            lambda: model.vision_model,
            tokenizer=tokenizer,
            image_processor=image_processor,
            lenses=lenses,
            allow_other_vit=allow_other_vit,
            positions=positions,
            video_frames=video_frames,
        )
        self._look_at = dict.fromkeys(self.streams, look) if isinstance(look, str) else dict(look)
        self._check_look()
        if qformer_tokenizer is None or qformer_tokenizer.pad_token_id is None:
            raise HostError("InstructBLIP's Q-Former reads the prompt too: it needs its tokenizer (BERT's), with a pad token")
        check_vocabulary(qformer_tokenizer, model.qformer.embeddings.word_embeddings, f"{self.name}'s Q-Former")
        # Padding on the left, as the language model's tokenizer has it, would shift the Q-Former's absolute positions.
        self.qformer_tokenizer = copy.deepcopy(qformer_tokenizer)
        self.qformer_tokenizer.padding_side, self.qformer_tokenizer.truncation_side = "right", "left"

    @classmethod
    def from_pretrained(
        cls,
        mllm: str | os.PathLike[str],
        lenses: Mapping[str, ViTLens | LensStream | str] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device_map: Any = None,
        load_in_8bit: bool = False,
        allow_other_vit: bool = False,
        positions: Literal["strict", "interpolate"] = "strict",
        video_frames: int = 8,
        look: Look | Mapping[str, Look] = "all",
        revision: str | None = None,
    ) -> InstructBlipAdapter:
        """Load an InstructBLIP with its tokenizers from a Hub repository or a folder, and plug lenses in.

        `dtype` None is bfloat16 on CUDA, else float32. `load_in_8bit` quantises the language model only (bitsandbytes);
        `device_map` is accelerate's, the ViT must stay on a device.

        Raises:
            ModelError: a host or a lens that is not here and cannot be fetched.
            HostError: another kind of model, misfits, or not enough memory.
        """
        files = find_host(mllm, "instructblip", revision=revision)
        from transformers import AutoImageProcessor, AutoTokenizer, InstructBlipForConditionalGeneration

        # The parts, not the processor: it would add an image token that the embedding table may not have.
        parts = {
            "tokenizer": files.load(AutoTokenizer),
            "qformer_tokenizer": files.load(AutoTokenizer, subfolder="qformer_tokenizer"),
            "image_processor": files.load(AutoImageProcessor),
        }
        model = load_host(
            files,
            InstructBlipForConditionalGeneration,
            dtype=dtype,
            device_map=device_map,
            load_in_8bit=load_in_8bit,
            plain=cls.never_quantised,
        )
        return cls(
            model,
            **parts,
            lenses=lenses,
            allow_other_vit=allow_other_vit,
            positions=positions,
            video_frames=video_frames,
            look=look,
        )

    @property
    def _language(self) -> Any:
        return self.model.language_model

    def generate(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        *,
        fuse: Fuse = "qformer",
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> list[str]:
        """Answers to a prompt, or one per sample, about what the streams hold.

        `inputs` maps streams to an item or a list of b items, as `ViTLens.encode` takes them; `read_options[stream]` goes to the
        reader of each. Further keywords are generation options of transformers, by default `defaults`.

        Raises:
            ModalityError, InputError, OptionError, HostError: before anything is generated.
        """
        return self._generate(lambda: self._rows(prompts, inputs, fuse, read_options), options)

    def stream(
        self,
        prompt: str,
        inputs: Inputs,
        *,
        fuse: Fuse = "qformer",
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """The answer to one prompt, piece by piece, of greedy search or sampling (without beams); raises as `generate`."""
        return self._stream(lambda: self._rows(prompt, inputs, fuse, read_options), options)

    def embeds(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        *,
        fuse: Fuse = "qformer",
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the language model gets: inputs_embeds [b, n, H] and attention_mask [b, n], with gradients."""
        return self._batch(self._rows(prompts, inputs, fuse, read_options))

    def loss(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        targets: str | Sequence[str],
        *,
        fuse: Fuse = "qformer",
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Tensor:
        """Cross entropy of the target answers, one per sample; gradients reach lenses, Q-Former and language model.

        What trains is yours to say (`requires_grad`, train and evaluation mode): nothing is frozen or switched here.
        """
        return self._loss(lambda: self._rows(prompts, inputs, fuse, read_options), targets)

    def soft_tokens(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        *,
        fuse: Fuse = "qformer",
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Tensor:
        """What stands for the inputs in front of the text: [b, queries, H], or [b, queries * streams, H] with `fuse="llm"`.

        The Q-Former reads the prompt as well, so that the same inputs give other soft tokens to another question.
        """
        if fuse not in get_args(Fuse):
            raise OptionError(f"fuse must be one of {', '.join(get_args(Fuse))}, found {fuse!r}")
        texts, items = self._gather(prompts, inputs)
        if not items:
            raise OptionError(f"nothing to look at: give at least one of {', '.join(self.streams)}")
        streams = self._look(items, len(texts), read_options)
        seen = [self._together(streams)] if fuse == "vit" else [self._alone(name, view) for name, view in _views(streams)]
        seen = seen if fuse == "llm" else [torch.cat(seen, dim=1)]
        return torch.cat([self._queried(vision, texts) for vision in seen], dim=1)

    def _check_look(self) -> None:
        for name, which in self._look_at.items():
            if name not in self.streams:
                raise OptionError(f"look: no stream {name!r}; there is {', '.join(self.streams)}")
            if which not in get_args(Look):
                raise OptionError(f"look must be one of {', '.join(get_args(Look))}, found {which!r}")

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

    def _queried(self, vision: Tensor, texts: Sequence[str]) -> Tensor:
        """Q-Former and projection: what the ViT saw [b, n, D] and the prompts -> soft tokens [b, queries, H]."""
        limit = min(QFORMER_TOKENS, self.model.config.qformer_config.max_position_embeddings)
        written = self.qformer_tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        written = {key: written[key].to(vision.device) for key in ("input_ids", "attention_mask")}
        queries = self.model.query_tokens.to(vision.device).expand(len(texts), -1, -1)
        ones = torch.ones(queries.shape[:2], dtype=torch.long, device=vision.device)
        out = self.model.qformer(
            input_ids=written["input_ids"],
            attention_mask=torch.cat([ones, written["attention_mask"]], dim=1),
            query_embeds=queries,
            encoder_hidden_states=vision,
            encoder_attention_mask=torch.ones(vision.shape[:2], dtype=torch.long, device=vision.device),
        )
        return self.model.language_projection(out.last_hidden_state[:, : queries.shape[1]])

    def _rows(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        fuse: Fuse,
        read_options: Mapping[str, Mapping[str, Any]] | None,
    ) -> list[Tensor]:
        """Per sample: soft tokens, then (BOS and) the text, as embeddings [n, H]."""
        texts, _ = self._gather(prompts, inputs)
        soft = self.soft_tokens(texts, inputs, fuse=fuse, read_options=read_options)
        words = [self._embed(self._ids(text)) for text in texts]
        return [torch.cat([row.to(text.device, text.dtype), text]) for row, text in zip(soft, words, strict=True)]


def _views(streams: Mapping[str, list[LensTokens]]) -> list[tuple[str, LensTokens]]:
    return [(name, view) for name, views in streams.items() for view in views]

"""LLaVA (arXiv 2304.08485, 2310.03744) that understands any sensor a lens was trained for, without training LLaVA.

    host = LlavaAdapter.from_pretrained("llava-hf/llava-1.5-7b-hf", lenses={"depth": lens})
    host.generate("<image> and <depth> show one room. How far is the table?", {"image": "room.jpg", "depth": "room.png"})

A lens gives what the patch convolution of LLaVA's CLIP ViT would have given; the blocks up to the layer that LLaVA takes its
features from, the projector and the language model do the rest. The lens must have been trained against that CLIP ViT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vitlens.adapters.chat.host import ChatHost, Inputs, naming
from vitlens.adapters.chat.llava_prompt import ChatFormat, Turn, check_chat_format, conversation, place_streams
from vitlens.adapters.host_files import find_host, load_host
from vitlens.adapters.splice import LensStream, LensTokens
from vitlens.errors import HostError
from vitlens.model import ViTLens


class LlavaAdapter(ChatHost):
    """A LLaVA of transformers with lenses; see `ChatHost` for the options.

    The tokens of a stream stand where the prompt says `<its name>`; streams that it does not name come before its text, in the
    order of the dict. `chat_format` "auto" takes the chat template of the tokenizer, or LLaVA-1.5's (`USER: ... ASSISTANT:`)
    where there is none; "llava-1.5" takes the latter; "none" gives the prompt to the model as it is.

    Raises:
        HostError: a lens, a tokenizer or a host that do not fit together.
        OptionError: a lens under the name of a built-in stream ("image", "video"), or an unknown chat format.
    """

    defaults: Mapping[str, Any] = MappingProxyType({"num_beams": 1, "do_sample": False, "max_new_tokens": 256})

    never_quantised: ClassVar[tuple[str, ...]] = ("model.vision_tower", "model.multi_modal_projector")
    """Modules that `load_in_8bit` leaves whole: all but the language model."""

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        image_processor: Any,
        lenses: Mapping[str, ViTLens | LensStream | str] | None = None,
        allow_other_vit: bool = False,
        positions: Literal["strict", "interpolate"] = "strict",
        video_frames: int = 8,
        chat_format: ChatFormat = "auto",
    ) -> None:
        found = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if found != "llava" or not hasattr(model, "lm_head"):
            raise HostError(f"transformers' LlavaForConditionalGeneration is needed, found {type(model).__name__} ({found})")
        super().__init__(
            model,
            lambda: model.model.vision_tower,
            tokenizer=tokenizer,
            image_processor=image_processor,
            lenses=lenses,
            allow_other_vit=allow_other_vit,
            positions=positions,
            video_frames=video_frames,
        )
        check_chat_format(chat_format)
        self.chat_format: ChatFormat = chat_format
        self.image_token_id = int(model.config.image_token_id)
        self.image_token = tokenizer.convert_ids_to_tokens(self.image_token_id)
        read = tokenizer(self.image_token or "", add_special_tokens=False)["input_ids"]
        if read != [self.image_token_id]:
            raise HostError(
                f"the tokenizer has no image token: {self.name} expects it as number {self.image_token_id}; "
                "use the tokenizer that came with this host"
            )

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
        chat_format: ChatFormat = "auto",
        revision: str | None = None,
    ) -> LlavaAdapter:
        """Load a LLaVA with its tokenizer from a Hub repository or a folder, and plug lenses in.

        `dtype` None is bfloat16 on CUDA, else float32. `load_in_8bit` quantises the language model only (bitsandbytes);
        `device_map` is accelerate's, the ViT must stay on a device.

        Raises:
            ModelError: a host or a lens that is not here and cannot be fetched.
            HostError: another kind of model, misfits, or not enough memory.
        """
        files = find_host(mllm, "llava", revision=revision)
        from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration

        parts = {"tokenizer": files.load(AutoTokenizer), "image_processor": files.load(AutoImageProcessor)}
        model = load_host(
            files,
            LlavaForConditionalGeneration,
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
            chat_format=chat_format,
        )

    @property
    def _language(self) -> Any:
        return self.model

    def generate(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        *,
        history: Sequence[Turn] = (),
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> list[str]:
        """Answers to a prompt, or one per sample, about what the streams hold.

        `inputs` maps streams to an item or a list of b items, as `ViTLens.encode` takes them; `read_options[stream]` goes to the
        reader of each. `history` holds earlier (question, answer) pairs; `<stream>` may stand in their questions. Further
        keywords are generation options of transformers, by default `defaults`.

        Raises:
            ModalityError, InputError, OptionError, HostError: before anything is generated.
        """
        return self._generate(lambda: self._rows(prompts, inputs, history, read_options), options)

    def stream(
        self,
        prompt: str,
        inputs: Inputs,
        *,
        history: Sequence[Turn] = (),
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """The answer to one prompt, piece by piece, of greedy search or sampling (without beams); raises as `generate`."""
        return self._stream(lambda: self._rows(prompt, inputs, history, read_options), options)

    def embeds(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        *,
        history: Sequence[Turn] = (),
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the language model gets: inputs_embeds [b, n, H] and attention_mask [b, n], with gradients."""
        return self._batch(self._rows(prompts, inputs, history, read_options))

    def loss(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        targets: str | Sequence[str],
        *,
        history: Sequence[Turn] = (),
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Tensor:
        """Cross entropy of the target answers, one per sample; gradients reach lenses, projector and language model.

        What trains is yours to say (`requires_grad`, train and evaluation mode): nothing is frozen or switched here.
        """
        return self._loss(lambda: self._rows(prompts, inputs, history, read_options), targets)

    def soft_tokens(self, inputs: Inputs, *, read_options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Tensor]:
        """Stream -> what stands for it in the prompt: projected patch tokens [b, m, H], views one after another."""
        count = max((len(given) if isinstance(given, list) else 1 for given in inputs.values()), default=1)
        _, items = self._gather([""] * count, inputs)
        return self._projected(items, count, read_options)

    def _projected(
        self, items: Mapping[str, list[Any]], count: int, read_options: Mapping[str, Mapping[str, Any]] | None
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, views in self._look(items, count, read_options).items():
            with naming(name):
                features = [self.model.model.multi_modal_projector(self._features(view)) for view in views]
            found[name] = torch.cat(features, dim=1)
        return found

    def _features(self, tokens: LensTokens) -> Tensor:
        """The ViT's features as LLaVA selects them: of one or several layers, with or without the class token."""
        config = self.model.config
        layers = config.vision_feature_layer
        layers = [layers] if isinstance(layers, int) else list(layers)
        depth = len(self.tower.view().blocks)
        # Layer 0 is what the first block gets, -1 what the last one gives.
        blocks = [layer if layer >= 0 else depth + 1 + layer for layer in layers]
        hidden = [self.tower.hidden(tokens, blocks=count) for count in blocks]
        if config.vision_feature_select_strategy == "default":
            hidden = [x[:, 1:] for x in hidden]
        return torch.cat(hidden, dim=-1)

    def _rows(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        history: Sequence[Turn],
        read_options: Mapping[str, Mapping[str, Any]] | None,
    ) -> list[Tensor]:
        """Per sample: the conversation as embeddings [n, H], the streams in their places."""
        texts, items = self._gather(prompts, inputs)
        placed = [
            place_streams([*(question for question, _ in history), text], items, self.streams, image_token=self.image_token)
            for text in texts
        ]
        answers = [answer for _, answer in history]
        written = [(conversation(questions, answers, self.tokenizer, self.chat_format), order) for questions, order in placed]
        soft = self._projected(items, len(texts), read_options)
        return [self._filled(self._ids(text), [soft[name][i] for name in order]) for i, (text, order) in enumerate(written)]

    def _filled(self, ids: Sequence[int], soft: Sequence[Tensor]) -> Tensor:
        """Embeddings of a text whose image tokens are replaced, one after the other, by the streams' tokens."""
        embedded = self._embed(ids)
        places = [i for i, token in enumerate(ids) if token == self.image_token_id]
        if len(places) != len(soft):
            raise HostError(
                f"{len(soft)} streams have a place in the prompt, but {len(places)} image tokens came out of the tokenizer and "
                "its chat template: use the tokenizer that came with this host, or chat_format='llava-1.5'"
            )
        parts: list[Tensor] = []
        start = 0
        for place, tokens in zip(places, soft, strict=True):
            parts += [embedded[start:place], tokens.to(embedded.device, embedded.dtype)]
            start = place + 1
        return torch.cat([*parts, embedded[start:]])

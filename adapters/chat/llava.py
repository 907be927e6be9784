"""LLaVA (arXiv 2304.08485, 2310.03744) that understands any sensor a lens was trained for, without training LLaVA.

    host = LlavaAdapter.from_pretrained("llava-hf/llava-1.5-7b-hf", lenses={"depth": lens})
    host.generate("<image> and <depth> show one room. How far is the table?", {"image": "room.jpg", "depth": "room.png"})

A lens gives what the patch convolution of LLaVA's CLIP ViT would have given; the blocks up to the layer that LLaVA takes its
features from, the projector and the language model do the rest. The lens must have been trained against that CLIP ViT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitlens.adapters.chat.host import ChatHost, Inputs, Plugging, ReadOptions, naming
from vitlens.adapters.chat.llava_prompt import ChatFormat, Exchange, check_chat_format, conversation, place_streams
from vitlens.adapters.splice import HostTower, LensTokens
from vitlens.errors import HostError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LlavaAdapter(ChatHost):
    """A LLaVA of transformers with lenses; see `ChatHost` for the options that are not named here.

    The tokens of a stream stand where the prompt says `<its name>`; streams that it does not name come before its text, in the
    order of the dict. `chat_format` "auto" takes the chat template of the tokenizer, or LLaVA-1.5's (`USER: ... ASSISTANT:`)
    where there is none; "llava-1.5" takes the latter; "none" gives the prompt to the model as it is.

    `history`, an option of every call, holds earlier (question, answer) pairs; `<stream>` may stand in their questions.

    Raises:
        HostError: a lens, a tokenizer or a host that do not fit together.
        OptionError: a lens under the name of a built-in stream ("image", "video"), or an unknown chat format.
    """

    model_type = "llava"
    model_class = "LlavaForConditionalGeneration"
    needs = "lm_head"
    never_quantised = ("model.vision_tower", "model.multi_modal_projector")
    own_options = ("history",)
    defaults: Mapping[str, Any] = MappingProxyType({"num_beams": 1, "do_sample": False, "max_new_tokens": 256})

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        image_processor: Any,
        chat_format: ChatFormat = "auto",
        **plugging: Unpack[Plugging],
    ) -> None:
        check_chat_format(chat_format)
        super().__init__(
            model, lambda: model.model.vision_tower, tokenizer=tokenizer, image_processor=image_processor, **plugging
        )
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
    def _constructor_options(cls) -> list[str]:
        return [*super()._constructor_options(), "chat_format"]

    def _language(self) -> Any:
        return self.model

    @classmethod
    def _unused(cls, model: Any) -> Iterable[nn.Parameter]:
        """What of the ViT lies behind the layers that features are taken from: last blocks, final norm, pooling."""
        vit = HostTower(lambda: model.model.vision_tower, name="LLaVA").view()
        behind = [*vit.blocks[cls._depth(model) :], vit.norm_post, vit.head, vit.pooler]
        return [parameter for part in behind if isinstance(part, nn.Module) for parameter in part.parameters()]

    @classmethod
    def _depth(cls, model: Any) -> int:
        return max(_blocks_before(model.config.vision_feature_layer, model.config.vision_config.num_hidden_layers))

    def soft_tokens(self, inputs: Inputs, *, read_options: ReadOptions | None = None) -> dict[str, Tensor]:
        """Stream -> what stands for it in the prompt: projected patch tokens [b, m, H], views one after another."""
        count = max((len(given) if isinstance(given, list) else 1 for given in inputs.values()), default=1)
        _, items = self._gather([""] * count, inputs)
        return self._projected(items, count, read_options)

    def _projected(self, items: Mapping[str, list[Any]], count: int, read_options: ReadOptions | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, views in self._look(items, count, read_options).items():
            with naming(name):
                features = [self.model.model.multi_modal_projector(self._features(view)) for view in views]
            found[name] = torch.cat(features, dim=1)
        return found

    def _features(self, tokens: LensTokens) -> Tensor:
        """The ViT's features as LLaVA selects them: of one or several layers, with or without the class token."""
        config = self.model.config
        blocks = _blocks_before(config.vision_feature_layer, config.vision_config.num_hidden_layers)
        hidden = [self.tower.hidden(tokens, blocks=count) for count in blocks]
        if config.vision_feature_select_strategy == "default":
            hidden = [x[:, 1:] for x in hidden]
        return torch.cat(hidden, dim=-1)

    def _rows(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        read_options: ReadOptions | None,
        *,
        history: Sequence[Exchange] = (),
        **_: Any,
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
        return [
            self._filled(self.language.ids(text), [soft[name][i] for name in order]) for i, (text, order) in enumerate(written)
        ]

    def _filled(self, ids: Sequence[int], soft: Sequence[Tensor]) -> Tensor:
        """Embeddings of a text whose image tokens are replaced, one after the other, by the streams' tokens."""
        embedded = self.language.embed(ids)
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


def _blocks_before(layers: int | Sequence[int], depth: int) -> list[int]:
    """How many blocks run before each feature layer: 0 is what the first block gets, -1 what the last of `depth` gives."""
    listed = [layers] if isinstance(layers, int) else list(layers)
    return [layer if layer >= 0 else depth + 1 + layer for layer in listed]

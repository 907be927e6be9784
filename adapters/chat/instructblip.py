"""InstructBLIP (arXiv 2305.06500) that understands any sensor a lens was trained for, without training InstructBLIP.

    host = InstructBlipAdapter.from_pretrained("Salesforce/instructblip-vicuna-7b", lenses={"point_cloud": lens})
    host.generate("What is this?", {"point_cloud": "chair.ply", "image": "room.jpg"})

Its Q-Former reads the prompt too, in words of its own (BERT's).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitlens.adapters.chat.host import Plugging
from vitlens.adapters.chat.qformer import Look, QFormerHost, nothing_hidden
from vitlens.adapters.generation import check_vocabulary
from vitlens.adapters.host_files import HostFiles
from vitlens.errors import HostError

if TYPE_CHECKING:
    from typing_extensions import Unpack

QFORMER_TOKENS = 128
"""Tokens of the prompt that the Q-Former reads; of a longer one the last."""


class InstructBlipAdapter(QFormerHost):
    """An InstructBLIP of transformers (LLaMA/Vicuna or T5) with lenses; see `QFormerHost` for `fuse` and `look`.

    Raises:
        HostError: a lens, a tokenizer or a host that do not fit together.
        OptionError: a lens under the name of a built-in stream ("image", "video").
    """

    model_type = "instructblip"
    model_class = "InstructBlipForConditionalGeneration"
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

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        qformer_tokenizer: Any,
        image_processor: Any,
        look: Look | Mapping[str, Look] = "all",
        **plugging: Unpack[Plugging],
    ) -> None:
        super().__init__(model, tokenizer=tokenizer, image_processor=image_processor, look=look, **plugging)
        if qformer_tokenizer is None or qformer_tokenizer.pad_token_id is None:
            raise HostError("InstructBLIP's Q-Former reads the prompt too: it needs its tokenizer (BERT's), with a pad token")
        check_vocabulary(qformer_tokenizer, model.qformer.embeddings.word_embeddings, f"{self.name}'s Q-Former")
        # Padding on the left, as the language model's tokenizer has it, would shift the Q-Former's absolute positions.
        self.qformer_tokenizer = copy.deepcopy(qformer_tokenizer)
        self.qformer_tokenizer.padding_side, self.qformer_tokenizer.truncation_side = "right", "left"

    @classmethod
    def _parts(cls, files: HostFiles) -> dict[str, Any]:
        from transformers import AutoTokenizer

        return {**super()._parts(files), "qformer_tokenizer": files.load(AutoTokenizer, subfolder="qformer_tokenizer")}

    def _queried(self, queries: Tensor, vision: Tensor, texts: Sequence[str]) -> Tensor:
        limit = min(QFORMER_TOKENS, self.model.config.qformer_config.max_position_embeddings)
        written = self.qformer_tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        written = {key: written[key].to(vision.device) for key in ("input_ids", "attention_mask")}
        return self.model.qformer(
            input_ids=written["input_ids"],
            attention_mask=torch.cat([nothing_hidden(queries), written["attention_mask"]], dim=1),
            query_embeds=queries,
            encoder_hidden_states=vision,
            encoder_attention_mask=nothing_hidden(vision),
        ).last_hidden_state

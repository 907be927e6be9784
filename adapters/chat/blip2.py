"""BLIP-2 (arXiv 2301.12597) with lenses: InstructBLIP's elder, whose Q-Former does not read the prompt.

    host = Blip2Adapter.from_pretrained("Salesforce/blip2-opt-2.7b", lenses={"point_cloud": lens})
    host.generate("Question: what is this? Answer:", {"point_cloud": "chair.ply"})

It was not taught to follow instructions: it goes on from a prompt (OPT), or answers "Question: ... Answer:" (OPT and Flan-T5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from vitlens.adapters.chat.qformer import QFormerHost, nothing_hidden


class Blip2Adapter(QFormerHost):
    """A BLIP-2 of transformers (OPT or Flan-T5) with lenses; see `QFormerHost` for `fuse` and `look`.

    Its ViT is InstructBLIP's, so that the same lenses fit.

    Raises:
        HostError: a lens, a tokenizer or a host that do not fit together.
        OptionError: a lens under the name of a built-in stream ("image", "video").
    """

    model_type = "blip-2"
    model_class = "Blip2ForConditionalGeneration"
    defaults: Mapping[str, Any] = MappingProxyType(
        {"num_beams": 5, "do_sample": False, "max_new_tokens": 30, "min_new_tokens": 1, "top_p": 0.9, "length_penalty": 1.0}
    )
    """Those of LAVIS' BLIP-2."""

    def describe(self, inputs: Mapping[str, Any], prompt: str = "a photo of", **options: Any) -> list[str]:
        """A caption of each item: what the model makes of `prompt`."""
        return super().describe(inputs, prompt, **options)

    def _queried(self, queries: Tensor, vision: Tensor, texts: Sequence[str]) -> Tensor:
        return self.model.qformer(
            query_embeds=queries, encoder_hidden_states=vision, encoder_attention_mask=nothing_hidden(vision)
        ).last_hidden_state

"""LAVIS' InstructBLIP checkpoints as transformers' InstructBLIP reads them: every key used, dropped by a rule, or named.

    weights = convert_lavis("instruct_blip_vicuna7b.pth", model)   # which parts the file holds, and which the host must bring
    weights.load_into(model)

LAVIS saves what it trained (Q-Former, query tokens, projection, the norm behind the ViT) and leaves the frozen ViT and the
language model out; a file may hold those too. A part that is there must be there whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitlens.errors import CheckpointError, HostError, MissingDependencyError
from vitlens.sources import name_of
from vitlens.weights_files import read_content, unwrap

PARTS = {
    "vision": ("vision_model.embeddings.", "vision_model.encoder."),
    "vision_norm": ("vision_model.post_layernorm.",),
    "qformer": ("query_tokens", "qformer."),
    "projection": ("language_projection.",),
    "language": ("language_model.",),
}
"""Part of the host -> how its transformers keys begin."""

DROPPED = (r"Qformer\.cls\..*", r".*\.position_ids", r"(llm|t5|opt)_model\..*\.rotary_emb\.inv_freq")
"""What transformers' model does not have: the head of the Q-Former's pretraining, and tables made anew at birth."""

_RENAMED = (
    (r"visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"ln_vision\.", "vision_model.post_layernorm."),
    (r"Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.embeddings.layernorm."),
    (r"Qformer\.bert\.(.*\.(?:cross)?attention)\.self\.", r"qformer.\1.attention."),
    (r"Qformer\.bert\.", "qformer."),
    (r"(?:llm|t5|opt)_proj\.", "language_projection."),
    (r"(?:llm|t5|opt)_model\.", "language_model."),
)
_HALF_BIAS = re.compile(r"(visual_encoder\.blocks\.\d+\.attn\.)([qv])_bias")


@dataclass(frozen=True)
class LavisWeights:
    """A LAVIS checkpoint under transformers' names.

    `parts` are those of the host that the file holds, each whole; `missing` those that the host must bring itself; `dropped`
    the file's keys that a rule left out.
    """

    state: dict[str, Tensor]
    parts: tuple[str, ...]
    missing: tuple[str, ...]
    dropped: tuple[str, ...]

    def load_into(self, model: nn.Module) -> None:
        """Copy the tensors into `model`, in the model's own dtype and on its device; what the file lacks stays as it is.

        Raises:
            CheckpointError: another model than the one it was converted for.
            HostError: weights of the model are not in memory (offloaded).
        """
        own = model.state_dict(keep_vars=True)
        _check_shapes(self.state, {key: value.shape for key, value in own.items()}, type(model).__name__)
        away = [key for key in self.state if own[key].is_meta]
        if away:
            raise HostError(f"{len(away)} weights of the model are offloaded ({_some(away)}): load it without device_map first")
        with torch.no_grad():
            for key, value in self.state.items():
                own[key].copy_(value)


def convert_lavis(source: Mapping[str, Tensor] | str | os.PathLike[str], host: Any) -> LavisWeights:
    """Rename a LAVIS InstructBLIP checkpoint (a state dict, or the path of a .pth file) to the keys of `host`.

    `host` is transformers' InstructBlipForConditionalGeneration or its configuration: what the keys and shapes must fit.

    Raises:
        InputError: missing or empty file.
        CheckpointError: keys that are not known or not the host's, parts that are not whole, shapes that differ; all named.
    """
    name = name_of(source) if isinstance(source, str | os.PathLike) else "LAVIS state dict"
    wanted = _shapes_of(host)
    given = _state_of(source, name)
    dropped = tuple(key for key in given if any(re.fullmatch(rule, key) for rule in DROPPED))
    state, unknown = _renamed({key: value for key, value in given.items() if key not in dropped}, name)
    unknown += [key for key in state if key not in wanted]
    if unknown:
        raise CheckpointError(f"{name}: {len(unknown)} keys that this InstructBLIP does not have: {_some(unknown)}")
    _check_shapes(state, wanted, name)
    parts = tuple(part for part in PARTS if any(_part_of(key) == part for key in state))
    absent = [key for key in wanted if _part_of(key) in parts and key not in state]
    if absent:
        raise CheckpointError(f"{name}: holds {', '.join(parts)}, but {len(absent)} keys of them are missing: {_some(absent)}")
    if not parts:
        raise CheckpointError(f"{name}: holds no part of an InstructBLIP")
    return LavisWeights(state, parts, tuple(part for part in PARTS if part not in parts), dropped)


def _state_of(source: Mapping[str, Tensor] | str | os.PathLike[str], name: str) -> dict[str, Tensor]:
    """The flat state dict; LAVIS keeps it under "model", beside the optimizer and the configuration."""
    content = source if isinstance(source, Mapping) else read_content(source)
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    return unwrap(content, name)


def _renamed(given: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under transformers' keys, and the keys that no rule knows."""
    state: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in given.items():
        half = _HALF_BIAS.fullmatch(key)
        if half:
            block, part = half.groups()
            if part == "q":
                state[_new_name(f"{block}qkv.bias")] = _whole_bias(given, block, name)
            elif f"{block}q_bias" not in given:
                raise CheckpointError(f"{name}: {key} without {block}q_bias")
            continue
        new = _new_name(key)
        if new == key and key != "query_tokens":
            unknown.append(key)
        else:
            state[new] = value
    return state, unknown


def _new_name(key: str) -> str:
    for old, new in _RENAMED:
        found = re.match(old, key)
        if found:
            return found.expand(new) + key[found.end() :]
    return key


def _whole_bias(given: Mapping[str, Tensor], block: str, name: str) -> Tensor:
    """The bias [3 D] of queries, keys and values: EVA's keys have none, zeros stand for it."""
    if f"{block}v_bias" not in given:
        raise CheckpointError(f"{name}: {block}q_bias without {block}v_bias")
    query, value = given[f"{block}q_bias"], given[f"{block}v_bias"]
    return torch.cat([query, torch.zeros_like(query), value])


def _shapes_of(host: Any) -> dict[str, torch.Size]:
    """Key -> shape of an InstructBLIP, or of the one that a configuration describes (built without weights)."""
    if not isinstance(host, nn.Module):
        try:
            from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration
        except ImportError as error:
            raise MissingDependencyError("InstructBLIP needs transformers: pip install 'vitlens[mllm]'") from error
        if not isinstance(host, InstructBlipConfig):
            raise HostError(f"an InstructBLIP of transformers or its configuration is needed, found {type(host).__name__}")
        with torch.device("meta"):
            host = InstructBlipForConditionalGeneration(host)
    return {key: value.shape for key, value in host.state_dict().items()}


def _check_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], name: str) -> None:
    wrong = [
        f"{key} {list(value.shape)} (needed {list(wanted[key]) if key in wanted else 'nothing'})"
        for key, value in state.items()
        if value.shape != wanted.get(key)
    ]
    if wrong:
        raise CheckpointError(f"{name}: {len(wanted)} keys are known, shapes of {len(wrong)} differ: {_some(wrong)}")


def _part_of(key: str) -> str:
    return next((part for part, heads in PARTS.items() if key.startswith(heads)), "nothing")


def _some(names: Iterable[str], limit: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")

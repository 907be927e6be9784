"""The networks of the Toybox's language models, built around its ViT, and their files.

transformers' own classes with the ViT as their eye, which stays frozen and is in no file: it is the Toybox model's. Everything
behind it is small and new. Lenses are plugged in by `vitlens.adapters.chat`, nothing is trained again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from vitlens.benchmarks.toybox.training.host import IMAGE, HostKind, HostRecipe, transformers_package
from vitlens.benchmarks.toybox.training.huggingface import blip_vision, clip_vision
from vitlens.checkpoint import save_tensors
from vitlens.disk import atomic
from vitlens.model import ViTLens

_EYES: dict[HostKind, str] = {"instructblip": "vision_model", "llava": "model.vision_tower"}
"""Kind of host -> the module in it that is its ViT."""
_HEADS = 4


def kind_of(host: Any) -> HostKind:
    """Which kind of host a model of transformers is."""
    return cast(HostKind, host.config.model_type)


def build_host(recipe: HostRecipe, model: ViTLens, speaker: Any, reader: Any) -> Any:
    """A host around the image tower of `model`, all but the tower with new random weights."""
    eye = _eye(recipe.kind, model)
    vision = eye.config
    host = _llava(recipe, vision, speaker) if recipe.kind == "llava" else _instructblip(recipe, vision, speaker, reader)
    torch.manual_seed(recipe.seed)
    for name, parameter in host.named_parameters():  # the classes' own initial weights are next to zero
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.06)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    host.set_submodule(_EYES[recipe.kind], eye)
    return host


def _instructblip(recipe: HostRecipe, vision: Any, speaker: Any, reader: Any) -> Any:
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipQFormerConfig

    width = recipe.width
    reading = InstructBlipQFormerConfig(
        vocab_size=len(reader),
        hidden_size=width,
        num_hidden_layers=recipe.qformer_layers,
        num_attention_heads=_HEADS,
        intermediate_size=2 * width,
        max_position_embeddings=48,
        encoder_hidden_size=vision.hidden_size,
        cross_attention_frequency=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=reader.pad_token_id,
    )
    language = _language(recipe, speaker, positions=256)
    config = InstructBlipConfig(
        vision_config=vision, qformer_config=reading, text_config=language, num_query_tokens=recipe.queries
    )
    config.image_token_index = None
    return InstructBlipForConditionalGeneration(config)


def _llava(recipe: HostRecipe, vision: Any, speaker: Any) -> Any:
    """LLaVA-1.5's shape: the last-but-one block's patch tokens, an MLP as the projector."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=vision,
        text_config=_language(recipe, speaker, positions=1024),  # the eight frames of a video, and words
        image_token_index=speaker.convert_tokens_to_ids(IMAGE),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return LlavaForConditionalGeneration(config)


def _language(recipe: HostRecipe, speaker: Any, *, positions: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(speaker),
        hidden_size=recipe.width,
        intermediate_size=3 * recipe.width,
        num_hidden_layers=recipe.language_layers,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=positions,
        pad_token_id=speaker.pad_token_id,
        bos_token_id=speaker.bos_token_id,
        eos_token_id=speaker.eos_token_id,
    )


def _eye(kind: HostKind, model: ViTLens) -> Any:
    """The image tower as the kind of host has its ViT, frozen."""
    return blip_vision(model) if kind == "instructblip" else clip_vision(model).vision_model


def save_host(folder: str | os.PathLike[str], host: Any, speaker: Any, reader: Any) -> Path:
    """Write config, weights (float16) and tokenizers to `folder`; the ViT is left out, it is the Toybox model's."""
    home, eye = Path(folder), _EYES[kind_of(host)] + "."
    home.mkdir(parents=True, exist_ok=True)
    state = {key: value.half() for key, value in host.state_dict().items() if not key.startswith(eye)}
    save_tensors(home / "model.safetensors", state)
    with atomic(home / "config.json") as part:
        part.write_text(host.config.to_json_string(), encoding="utf-8")
    speaker.save_pretrained(home)
    if reader is not None:
        reader.save_pretrained(home / "qformer_tokenizer")
    return home


def load_host(folder: str | os.PathLike[str], model: ViTLens) -> tuple[Any, Any, Any]:
    """Host and tokenizers (of a LLaVA one and None) from `folder`, on the device of `model`, whose image tower is its eye."""
    transformers = transformers_package()
    from safetensors.torch import load_file

    home = Path(folder)
    speaker = transformers.PreTrainedTokenizerFast.from_pretrained(home, local_files_only=True)
    config = home / "config.json"
    if json.loads(config.read_text(encoding="utf-8"))["model_type"] == "llava":
        host, reader = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig.from_json_file(config)), None
    else:
        host = transformers.InstructBlipForConditionalGeneration(transformers.InstructBlipConfig.from_json_file(config))
        reader = transformers.PreTrainedTokenizerFast.from_pretrained(home / "qformer_tokenizer", local_files_only=True)
    kind = kind_of(host)
    host.set_submodule(_EYES[kind], _eye(kind, model))
    state = {key: value.float() for key, value in load_file(home / "model.safetensors").items()}
    eye = {key: value for key, value in host.state_dict().items() if key.startswith(_EYES[kind] + ".")}
    host.load_state_dict({**state, **eye})
    return host.to(model.device).eval().requires_grad_(False), speaker, reader

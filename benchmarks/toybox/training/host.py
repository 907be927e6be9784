"""The Toybox's multimodal language model: a tiny InstructBLIP that learned to talk about pictures, and about nothing else.

transformers' own classes with the Toybox's ViT as their eye: a Q-Former and a small LLaMA are trained to answer questions about
pictures (`host_task.py`), the ViT stays frozen. Lenses are plugged in afterwards (`vitlens.adapters.chat.instructblip`), nothing
is trained again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitlens.benchmarks.toybox.training.huggingface import blip_vision
from vitlens.benchmarks.toybox.training.picture_task import pacing
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import SIZES, ToyObject
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.checkpoint import save_tensors
from vitlens.disk import atomic
from vitlens.errors import MissingDependencyError
from vitlens.model import ViTLens
from vitlens.train.options import RunOptions

QUESTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "everything": (
        ("describe this object", "what is this?", "describe this object in details", "what do you see?"),
        "a {size} {colour} {shape} made of {material}",
    ),
    "shape": (("what shape is it?", "which object is this?", "what kind of thing is it?"), "it is a {shape}"),
    "material": (("what is it made of?", "which material is it?", "what does it consist of?"), "it is made of {material}"),
    "colour": (("what colour is it?", "which colour does it have?"), "it is {colour}"),
    "size": (("how large is it?", "is it small or large?"), "it is {size}"),
}
"""Topic -> ways to ask, and the answer."""
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_EYE = "vision_model."


def answering(epochs: int = 8) -> RunOptions:
    """How fast the tiny InstructBLIP learns to answer."""
    return pacing(epochs, 64, lr=2e-3, weight_decay=0.05, precision="fp32")


@dataclass(frozen=True)
class HostRecipe:
    """Numbers of the tiny InstructBLIP and of its training."""

    pace: RunOptions = field(default_factory=answering)
    width: int = 128
    queries: int = 8
    qformer_layers: int = 2
    language_layers: int = 3
    alone: float = 0.5
    """Share of the pictures of which the Q-Former is shown the class token alone."""
    seed: int = 0


def answer(thing: ToyObject, topic: str) -> str:
    """What is right to say of an object when asked about a topic."""
    words = {"shape": thing.shape, "material": MATERIALS[thing.material].name, "colour": thing.colour, "size": thing.size_word}
    return QUESTIONS[topic][1].format(**words)


def tokenizers() -> tuple[Any, Any]:
    """The tokenizers of language model and Q-Former, made from the words of questions and answers."""
    PreTrainedTokenizerFast = _transformers().PreTrainedTokenizerFast
    words = sorted(_words())
    language = _word_tokenizer([*SPECIAL.values(), *words], unknown="<unk>", template="<s> $A")
    reading = _word_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words], unknown="[UNK]", template="[CLS] $A [SEP]")
    speaker = PreTrainedTokenizerFast(
        tokenizer_object=language, **SPECIAL, padding_side="left", truncation_side="left", model_input_names=_INPUTS
    )
    reader = PreTrainedTokenizerFast(
        tokenizer_object=reading,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        truncation_side="left",
        model_input_names=_INPUTS,
    )
    return speaker, reader


def build_host(recipe: HostRecipe, model: ViTLens, speaker: Any, reader: Any) -> Any:
    """An InstructBLIP around the image tower of `model`, all but the tower with new random weights."""
    from transformers import (
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipQFormerConfig,
        LlamaConfig,
    )

    vision, width = blip_vision(model), recipe.width
    reading = InstructBlipQFormerConfig(
        vocab_size=len(reader),
        hidden_size=width,
        num_hidden_layers=recipe.qformer_layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=48,
        encoder_hidden_size=vision.config.hidden_size,
        cross_attention_frequency=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=reader.pad_token_id,
    )
    language = LlamaConfig(
        vocab_size=len(speaker),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=recipe.language_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=speaker.pad_token_id,
        bos_token_id=speaker.bos_token_id,
        eos_token_id=speaker.eos_token_id,
    )
    config = InstructBlipConfig(
        vision_config=vision.config, qformer_config=reading, text_config=language, num_query_tokens=recipe.queries
    )
    config.image_token_index = None
    host = InstructBlipForConditionalGeneration(config)
    torch.manual_seed(recipe.seed)
    for name, parameter in host.named_parameters():  # the class's own initial weights are next to zero
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.06)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    host.vision_model = vision
    return host


def save_host(folder: str | os.PathLike[str], host: Any, speaker: Any, reader: Any) -> Path:
    """Write config, weights (float16) and tokenizers to `folder`; the ViT is left out, it is the Toybox model's."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    state = {key: value.half() for key, value in host.state_dict().items() if not key.startswith(_EYE)}
    save_tensors(home / "model.safetensors", state)
    with atomic(home / "config.json") as part:
        part.write_text(host.config.to_json_string(), encoding="utf-8")
    speaker.save_pretrained(home)
    reader.save_pretrained(home / "qformer_tokenizer")
    return home


def load_host(folder: str | os.PathLike[str], model: ViTLens) -> tuple[Any, Any, Any]:
    """Host and tokenizers from `folder`, with the image tower of `model` as its eye."""
    transformers = _transformers()
    from safetensors.torch import load_file

    home = Path(folder)
    speaker = transformers.PreTrainedTokenizerFast.from_pretrained(home, local_files_only=True)
    reader = transformers.PreTrainedTokenizerFast.from_pretrained(home / "qformer_tokenizer", local_files_only=True)
    host = transformers.InstructBlipForConditionalGeneration(transformers.InstructBlipConfig.from_json_file(home / "config.json"))
    host.vision_model = blip_vision(model)
    state = {key: value.float() for key, value in load_file(home / "model.safetensors").items()}
    eye = {key: value for key, value in host.state_dict().items() if key.startswith(_EYE)}
    host.load_state_dict({**state, **eye})
    return host.eval().requires_grad_(False), speaker, reader


def _words() -> set[str]:
    values: Mapping[str, Sequence[str]] = {
        "shape": list(SHAPES),
        "material": [material.name for material in MATERIALS.values()],
        "colour": [colour for material in MATERIALS.values() for colour in material.colours],
        "size": list(SIZES),
    }
    lines = [line for asked, said in QUESTIONS.values() for line in (*asked, said.replace("{", "").replace("}", ""))]
    lines += [word for words in values.values() for word in words]
    pre = _pre_tokenizer()
    return {word for line in lines for word, _ in pre.pre_tokenize_str(line)}


def _pre_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import Whitespace

    return Whitespace()


def _word_tokenizer(words: Sequence[str], *, unknown: str, template: str) -> Any:
    """A tokenizer of whole words, ids in the order given; `template` puts its special tokens around a text."""
    from tokenizers import Tokenizer, models, normalizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = _pre_tokenizer()
    around = [word for word in template.split() if word != "$A"]
    special = [(word, words.index(word)) for word in around]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


_INPUTS = ["input_ids", "attention_mask"]


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("the Toybox's language model needs transformers: pip install 'vitlens[mllm]'") from error
    return transformers

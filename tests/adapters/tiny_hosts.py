"""Tiny random hosts (InstructBLIP and BLIP-2 with several language models, LLaVA) and lenses for them, made in process.

The libraries' initial weights hide faults (query tokens of zero, everything tiny), so every weight is drawn anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from vitlens.encoder import EncoderSpec, build_encoder
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.towers import from_huggingface
from vitlens.vit import Trainable, ViTSpec

SIZE, PATCH, WIDTH, QUERIES = 32, 8, 32, 8
TOKENS = (SIZE // PATCH) ** 2
CORPUS = [
    "what is this object ?",
    "describe this object in details .",
    "a point cloud of a chair and a table",
    "the sound of a dog barking",
    "is it soft or hard",
    "USER: ASSISTANT: yes it is",
] * 4


def subword_tokenizer(*, bos: bool = True, pad: str | None = "<pad>", extra: tuple[str, ...] = ()) -> Any:
    """A BPE tokenizer as LLaMA's (with `bos` in front of every text) or T5's (with an end token behind it)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", *([pad] if pad else []), *extra]
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False))
    template, mark = ("<s> $A", "<s>") if bos else ("$A </s>", "</s>")
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(mark, made.token_to_id(mark))])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
        additional_special_tokens=list(extra),
        padding_side="left",
    )


def word_tokenizer() -> Any:
    """A word tokenizer in BERT's way, for the Q-Former."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    marks = [(mark, made.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def redraw(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw all weights anew, large enough that every part is heard; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.15 if parameter.ndim > 1 or "query" in name or "embedding" in name else 0.05
            drawn = scale * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + drawn if parameter.ndim == 1 and "norm" in name and name.endswith("weight") else drawn)
    return model.eval()


def llama_config(tokenizer: Any, **more: Any) -> Any:
    """A two-layer LLaMA for this tokenizer."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **more,
    )


def t5_config(tokenizer: Any) -> Any:
    """A two-layer T5 for this tokenizer."""
    from transformers import T5Config

    return T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )


def instructblip(language: str = "llama", seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """A random InstructBLIP (its image token comes last in the vocabulary), and the keyword arguments of an adapter for it."""
    from transformers import (
        BlipImageProcessor,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipQFormerConfig,
        InstructBlipVisionConfig,
    )

    tokenizer, words = subword_tokenizer(bos=language == "llama", extra=("<image>",)), word_tokenizer()
    vision = InstructBlipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    qformer = InstructBlipQFormerConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        encoder_hidden_size=WIDTH,
    )
    text = llama_config(tokenizer) if language == "llama" else t5_config(tokenizer)
    config = InstructBlipConfig(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = redraw(InstructBlipForConditionalGeneration(config), seed)
    parts = {
        "tokenizer": tokenizer,
        "qformer_tokenizer": words,
        "image_processor": BlipImageProcessor(size={"height": SIZE, "width": SIZE}),
    }
    return model, parts


def blip2(language: str = "opt", seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """A random BLIP-2 (its image token comes last in the vocabulary), and the keyword arguments of an adapter for it."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
    )

    tokenizer = subword_tokenizer(bos=language == "opt", extra=("<image>",))
    vision = Blip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    qformer = Blip2QFormerConfig(
        vocab_size=30,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        encoder_hidden_size=WIDTH,
    )
    text = opt_config(tokenizer) if language == "opt" else t5_config(tokenizer)
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = redraw(Blip2ForConditionalGeneration(config), seed)
    return model, {"tokenizer": tokenizer, "image_processor": BlipImageProcessor(size={"height": SIZE, "width": SIZE})}


def opt_config(tokenizer: Any) -> Any:
    """A two-layer OPT for this tokenizer."""
    from transformers import OPTConfig

    return OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def llava(seed: int = 0, **more: Any) -> tuple[Any, dict[str, Any]]:
    """A random LLaVA (CLIP tower, LLaMA), and the keyword arguments of an adapter for it."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = subword_tokenizer(extra=("<image>",))
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=16,
    )
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision, text_config=llama_config(tokenizer), image_token_index=image_token, image_seq_length=TOKENS, **more
    )
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    model = redraw(LlavaForConditionalGeneration(config), seed)
    return model, {"tokenizer": tokenizer, "image_processor": processor}


def lens_model(
    vision: nn.Module,
    modality: str = "depth",
    *,
    options: dict[str, Any] | None = None,
    trains: Trainable | None = None,
    **spec: Any,
) -> ViTLens:
    """A random lens of `modality` around the ViT of a host, which it shares (apart from what `trains` names)."""
    config: Any = vision.config
    vit_spec = ViTSpec(config.model_type, library="huggingface", config=config.to_diff_dict())
    options = options or SMALL.get(modality, {})
    encoder_spec = EncoderSpec(modality, vit_spec, options=options, trains=trains or Trainable(), **spec)
    asked = [parameter.requires_grad for parameter in vision.parameters()]
    encoder = build_encoder(encoder_spec, vit=from_huggingface(vision))
    for parameter, flag in zip(vision.parameters(), asked, strict=True):
        parameter.requires_grad_(flag)
    redraw(encoder.embed, 5)
    redraw(encoder.lens, 6)
    model = ModelSpec(f"tiny-{modality}", EmbeddingSpace("tiny", encoder.vit.embed_dim), (encoder_spec,))
    return ViTLens(spec=model, encoders={modality: encoder}, text=None).eval()


SMALL: dict[str, dict[str, Any]] = {
    "depth": {"size": SIZE},
    "tactile": {"size": SIZE},
    "point_cloud": {"points": 256, "groups": TOKENS, "group_size": 8, "encoder_width": 16},
}
"""Options that give each sensor as many tokens as the hosts' ViTs have patches (lenses of latents need none)."""


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Random pictures, uint8 [h, w, 3], of different sizes."""
    chance = np.random.default_rng(seed)
    return [chance.integers(0, 256, (40 + 8 * i, 48, 3), dtype=np.uint8) for i in range(count)]


def depths(count: int, seed: int = 0) -> list[np.ndarray]:
    """Random depth maps, metres [h, w]."""
    chance = np.random.default_rng(seed)
    return [chance.uniform(0.5, 5, (40, 48)).astype(np.float32) for _ in range(count)]


def clouds(count: int, seed: int = 0) -> list[np.ndarray]:
    """Random point clouds, [n, 3]."""
    chance = np.random.default_rng(seed)
    return [chance.normal(size=(300, 3)).astype(np.float32) for _ in range(count)]

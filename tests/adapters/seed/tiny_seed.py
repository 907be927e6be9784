"""A tiny SEED-LLaMA made in process: the golden quantizer, a tokenizer with 64 image codes, a LLaMA, a lens, an unCLIP."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitlens.adapters.seed.grammar import add_image_tokens
from vitlens.adapters.seed.llama import SeedLlamaAdapter
from vitlens.adapters.seed.quantizer import SeedQuantizer
from vitlens.encoder import EncoderSpec
from vitlens.lens_config import PerceiverConfig
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.vit import ViTSpec

REFERENCE = Path(__file__).parents[2] / "reference" / "mllm"
HEADS = {"vit_heads": 4, "heads": 4}
CODES, WIDTH = 64, 40
CORPUS = [
    "USER: what is this animal? can you generate an image of a dog on the green grass?\nASSISTANT:",
    "[INST] add a Halloween atmosphere [/INST]\nHere is a picture.",
    "Show both of them in one picture. What is this? it is a cat",
] * 8


@cache
def golden() -> dict[str, Any]:
    """The golden arrays by name."""
    with np.load(REFERENCE / "golden_seed_tiny.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def state(head: str = "image_down") -> dict[str, torch.Tensor]:
    """The golden state dict of a head, by its formula (see the reference's README)."""
    keys = json.loads((REFERENCE / "golden_seed_tiny.json").read_text())["keys"][head]
    return {key: _weight(key, tuple(shape)) for key, shape in keys.items()}


def _weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    if key.endswith("position_ids"):
        return torch.arange(shape[1]).unsqueeze(0)
    normal = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    if len(shape) == 1:
        normal = 1 + 0.1 * normal if key.endswith(".weight") else 0.02 * normal
    else:
        normal = normal / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(normal.astype(np.float32))


def quantizer(head: str = "image_down") -> SeedQuantizer:
    return SeedQuantizer.from_state_dict(state(head), **HEADS)


def plain_tokenizer() -> Any:
    """A BPE tokenizer like LLaMA's, without image tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def tokenizer(codes: int = CODES) -> Any:
    made = plain_tokenizer()
    add_image_tokens(made, codes=codes)
    return made


def llama(rows: int, positions: int = 1024) -> Any:
    """A LLaMA with weights large enough that its logits differ."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return randomised(LlamaForCausalLM(config).eval())


def randomised(module: nn.Module, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if "norm" in name and parameter.ndim == 1 else 0.15 * noise)
    return module


def lens(width: int = 32, latents: int | None = None) -> ViTLens:
    """A point cloud lens for the golden quantizer's ViT: 16 tokens of width 32."""
    host = ViTSpec("tiny EVA", library="host", config={"width": width, "head_width": 8, "patches": 16, "patch_size": 14})
    sensor = EncoderSpec(
        "point_cloud",
        host,
        options={"points": 128, "groups": 8, "group_size": 8, "encoder_width": 16},
        lens=PerceiverConfig(depth=1, latents=latents),
        token_width=24,
    )
    spec = ModelSpec(name="tiny-lens", space=EmbeddingSpace("tokens", width), encoders=(sensor,))
    return randomised(ViTLens.from_spec(spec))


def adapter(**options: Any) -> SeedLlamaAdapter:
    words = options.pop("tokenizer", None) or tokenizer()
    parts = {"model": llama(len(words)), "tokenizer": words, "quantizer": quantizer(), "template": "vicuna", **options}
    return SeedLlamaAdapter(**parts)


def unclip(width: int = WIDTH) -> Any:
    """A Stable unCLIP pipeline of random weights that takes image embeddings of `width` and draws 32 x 32 pixels."""
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import (
        CLIPImageProcessor,
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    words = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}, merges=[], model_max_length=77
    )
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(words), max_position_embeddings=77, **size, **ends))
    image = CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=width, **size))
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * width,
        cross_attention_dim=32,
        layers_per_block=1,
        use_linear_projection=True,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
    )
    made = StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(crop_size={"height": 32, "width": 32}, size={"shortest_edge": 32}),
        image_encoder=image.eval(),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=width),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=words,
        text_encoder=text.eval(),
        unet=randomised(unet.eval(), 1),
        scheduler=DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1),
        vae=randomised(vae.eval(), 2),
    )
    made.set_progress_bar_config(disable=True)
    return made

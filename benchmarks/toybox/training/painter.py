"""The Toybox's painter: a small unCLIP, from an embedding of the Toybox's space to a picture of 64 x 64.

An autoencoder makes pictures small (16 x 16 x 4), and a diffusion model draws the small pictures from the image embedding alone.
Both are diffusers' own modules, in diffusers' own Stable unCLIP pipeline; `painter_task.py` trains them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vitlens.benchmarks.toybox.training.clip import PICTURE
from vitlens.benchmarks.toybox.training.huggingface import clip_vision
from vitlens.benchmarks.toybox.training.picture_task import pacing
from vitlens.checkpoint import save_tensors
from vitlens.disk import atomic
from vitlens.errors import MissingDependencyError
from vitlens.model import ViTLens
from vitlens.train.options import RunOptions

LATENT = 16
"""Side of the autoencoder's small picture."""
PROMPT_WIDTH = 16
"""Channels of the text condition, which is always empty (zeros): the pipeline wants one."""


@dataclass(frozen=True)
class PainterRecipe:
    """Numbers of the painter's training: its stages, each with its own pace."""

    autoencoder: RunOptions = field(default_factory=lambda: pacing(2, 32, lr=2e-3, weight_decay=0.01))
    drawing: RunOptions = field(default_factory=lambda: pacing(27, 64, lr=1e-3, weight_decay=0.01, average=0.999))
    autoencoder_channels: tuple[int, ...] = (16, 32, 64)
    drawing_channels: tuple[int, ...] = (64, 96)
    seed: int = 0


def build_autoencoder(recipe: PainterRecipe) -> Any:
    """diffusers' AutoencoderKL, for 64 x 64 pictures."""
    AutoencoderKL = _diffusers().AutoencoderKL
    channels = recipe.autoencoder_channels
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=PICTURE,
    )


def build_pipeline(recipe: PainterRecipe, autoencoder: Any, model: ViTLens, embeddings: Tensor) -> Any:
    """The Stable unCLIP pipeline around a new diffusion model; `embeddings` [n, E] of pictures give the normaliser's numbers."""
    width, kinds = embeddings.shape[1], _kinds()
    unet = kinds["unet"](
        sample_size=LATENT,
        block_out_channels=recipe.drawing_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=PROMPT_WIDTH,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * width,
    )
    normalizer = kinds["image_normalizer"](embedding_dim=width)
    normalizer.mean.data, normalizer.std.data = embeddings.mean(dim=0, keepdim=True), embeddings.std(dim=0, keepdim=True)
    return assemble(model, unet=unet, vae=autoencoder, image_normalizer=normalizer)


def save_painter(folder: str | os.PathLike[str], pipe: Any) -> Path:
    """Write configurations and weights (float16) to `folder`; the image encoder is left out, it is the model's."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    parts = {name: getattr(pipe, name) for name in _OWN}
    state = {f"{name}.{key}": value.half() for name, part in parts.items() for key, value in part.state_dict().items()}
    save_tensors(home / "model.safetensors", state)
    configs = {name: {k: v for k, v in dict(module.config).items() if not k.startswith("_")} for name, module in parts.items()}
    with atomic(home / "config.json") as part:
        part.write_text(json.dumps(configs, indent=1) + "\n", encoding="utf-8")
    return home


def load_painter(folder: str | os.PathLike[str], model: ViTLens) -> Any:
    """The pipeline from `folder`, with the image tower of `model` as its image encoder."""
    from safetensors.torch import load_file

    home = Path(folder)
    configs = json.loads((home / "config.json").read_text(encoding="utf-8"))
    state = load_file(home / "model.safetensors")
    parts = {name: kind.from_config(configs[name]) for name, kind in _kinds().items()}
    for name, module in parts.items():
        own = {key.removeprefix(f"{name}."): value.float() for key, value in state.items() if key.startswith(f"{name}.")}
        module.load_state_dict(own)
        module.eval().requires_grad_(False)
    return assemble(model, **parts)


def assemble(model: ViTLens, *, unet: Any, vae: Any, image_normalizer: Any) -> Any:
    """The Stable unCLIP pipeline of these parts: no text encoder, and the image tower of `model` as its image encoder."""
    diffusers = _diffusers()
    pipe = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=None,
        image_encoder=clip_vision(model),
        image_normalizer=image_normalizer,
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=None,
        text_encoder=None,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
            set_alpha_to_one=True,
        ),
        vae=vae,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


_OWN = ("unet", "vae", "image_normalizer")


def _kinds() -> dict[str, Any]:
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    diffusers = _diffusers()
    return {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "image_normalizer": StableUnCLIPImageNormalizer,
    }


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependencyError("the Toybox's painter needs diffusers: pip install 'vitlens[mllm]'") from error
    return diffusers

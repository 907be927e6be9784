"""The Toybox's painter: a small unCLIP, from an embedding of the Toybox's space to a picture of 64 x 64.

An autoencoder makes pictures small (16 x 16 x 4), and a diffusion model learns to draw those small pictures from the image
embedding alone, noised by a varying amount so that it forgives what is not quite a picture's embedding (as unCLIP does, arXiv
2204.06125). Both are diffusers' own modules, in diffusers' own Stable unCLIP pipeline. Only pictures are looked at.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.benchmarks.toybox.training.clip import PICTURE, normalised
from vitlens.benchmarks.toybox.training.huggingface import clip_vision
from vitlens.benchmarks.toybox.training.steps import Pace, Steps
from vitlens.checkpoint import save_tensors
from vitlens.disk import atomic
from vitlens.errors import MissingDependencyError
from vitlens.model import ViTLens

LATENT = 16
"""Side of the autoencoder's small picture."""
PROMPT_WIDTH = 16
"""Channels of the text condition, which is always empty (zeros): the pipeline wants one."""
NOISE_LEVELS = 400
"""Embeddings are noised by up to so many of the noising schedule's 1000 steps."""
UNGUIDED = 0.1
"""Share of the training pictures drawn from no embedding at all: what guidance is measured against."""


@dataclass(frozen=True)
class PainterRecipe:
    """Numbers of the painter's training: its stages, each with its own pace."""

    autoencoder: Pace = field(default_factory=lambda: Pace(epochs=2, batch=32, lr=2e-3, weight_decay=0.01))
    drawing: Pace = field(default_factory=lambda: Pace(epochs=9, batch=64, lr=1e-3, weight_decay=0.01, average=0.999))
    autoencoder_channels: tuple[int, ...] = (16, 32, 64)
    drawing_channels: tuple[int, ...] = (64, 96)
    seed: int = 0


def train_painter(
    folder: str | os.PathLike[str], model: ViTLens, pictures: np.ndarray, recipe: PainterRecipe | None = None
) -> Any:
    """Train the painter of `model`'s image embeddings on pictures, uint8 [n, 64, 64, 3]; returns the pipeline.

    An interrupted training goes on where it was.
    """
    recipe, home = recipe or PainterRecipe(), Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    data = torch.from_numpy(np.ascontiguousarray(pictures))
    autoencoder = _train_autoencoder(home, data, recipe)
    latents, embeddings = _prepared(home / "prepared.pt", autoencoder, model, data)
    autoencoder.register_to_config(scaling_factor=float(1 / latents.float().std()))
    pipe = build_pipeline(recipe, autoencoder, model, embeddings.flatten(0, 1))
    torch.manual_seed(recipe.seed + 1)
    _train_drawing(home, pipe, latents.float() * autoencoder.config.scaling_factor, embeddings, recipe)
    return pipe


def _train_autoencoder(home: Path, pictures: Tensor, recipe: PainterRecipe) -> Any:
    """Pictures -> small pictures -> pictures: mean absolute error, and a small price for leaving the normal distribution."""
    module = build_autoencoder(recipe)
    steps = Steps(
        home / "autoencoder.state",
        module,
        recipe.autoencoder,
        rows=len(pictures),
        settings={**asdict(recipe), "rows": len(pictures)},
        seed=recipe.seed,
    )

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        x = _centred(pictures[rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = module.encode(x).latent_dist
            small = found.mean + found.std * torch.randn(found.mean.shape, generator=generator)
            back = module.decode(small).sample.float()
        return F.l1_loss(back, x) + F.mse_loss(back, x) + 1e-6 * found.kl().float().mean()

    return steps.run(loss_of, title="autoencoder").eval().requires_grad_(False)


def _train_drawing(home: Path, pipe: Any, latents: Tensor, embeddings: Tensor, recipe: PainterRecipe) -> None:
    """The diffusion model: noise of any strength -> velocity (arXiv 2202.00512), given a noised embedding."""
    unet, schedule = pipe.unet, pipe.scheduler
    steps = Steps(
        home / "drawing.state",
        unet,
        recipe.drawing,
        rows=latents.shape[1],
        settings={**asdict(recipe), "rows": latents.shape[1]},
        seed=recipe.seed,
    )

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        mirrored = (torch.rand(len(rows), generator=generator) < 0.5).long()
        clean = latents[mirrored, rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(0, schedule.config.num_train_timesteps, (len(rows),), generator=generator)
        condition = noised(pipe, embeddings[mirrored, rows], generator)
        condition[torch.rand(len(rows), generator=generator) < UNGUIDED] = 0
        empty = torch.zeros(len(rows), 1, PROMPT_WIDTH)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = unet(schedule.add_noise(clean, noise, times), times, empty, class_labels=condition).sample
        return F.mse_loss(out.float(), schedule.get_velocity(clean, noise, times))

    pipe.register_modules(unet=steps.run(loss_of, title="drawing").eval().requires_grad_(False))


def noised(pipe: Any, embeddings: Tensor, generator: torch.Generator) -> Tensor:
    """Embeddings [b, E], each noised by its own amount, with that amount beside it [b, 2E]; the pipeline noises all alike."""
    from diffusers.models.embeddings import get_timestep_embedding

    levels = torch.randint(0, NOISE_LEVELS, (len(embeddings),), generator=generator)
    noise = torch.randn(embeddings.shape, generator=generator)
    mixed = pipe.image_noising_scheduler.add_noise(pipe.image_normalizer.scale(embeddings), noise, timesteps=levels)
    amount = get_timestep_embedding(levels, embeddings.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
    return torch.cat([pipe.image_normalizer.unscale(mixed), amount], dim=1)


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


def _centred(pictures: Tensor) -> Tensor:
    """uint8 [b, 64, 64, 3] -> [b, 3, 64, 64] in -1 ... 1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def _prepared(file: Path, autoencoder: nn.Module, model: ViTLens, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Small pictures [2, n, 4, 16, 16] and embeddings [2, n, E] of pictures and of their mirror images, made once."""
    if not file.is_file():
        both = (pictures, pictures.flip(2))
        latents = torch.stack([_latents(autoencoder, x) for x in both])
        embeddings = torch.stack([_embeddings(model, x) for x in both])
        with atomic(file) as part:
            torch.save({"latents": latents, "embeddings": embeddings}, part)
    found = torch.load(file, weights_only=True)
    return found["latents"], found["embeddings"]


@torch.inference_mode()
def _latents(autoencoder: nn.Module, pictures: Tensor) -> Tensor:
    """Small pictures of pictures, float16 [n, 4, 16, 16]."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = [autoencoder.encode(_centred(part)).latent_dist.mean.half() for part in pictures.split(250)]  # type: ignore[operator]
    return torch.cat(parts).clone()


@torch.inference_mode()
def _embeddings(model: ViTLens, pictures: Tensor) -> Tensor:
    """Image embeddings [n, E] as the tower gives them, not normalised."""
    tower = model.tower("image")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.cat([tower(normalised(part)).float() for part in pictures.split(250)]).clone()


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependencyError("the Toybox's painter needs diffusers: pip install 'vitlens[mllm]'") from error
    return diffusers

"""The training of the Toybox's painter, on pictures alone: first its autoencoder, then the diffusion model.

The diffusion model is given the image embedding noised by a varying amount, so that it forgives what is not quite a picture's
embedding (as unCLIP does, arXiv 2204.06125).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.benchmarks.toybox.training.clip import normalised
from vitlens.benchmarks.toybox.training.painter import LATENT, PROMPT_WIDTH, PainterRecipe, build_autoencoder, build_pipeline
from vitlens.benchmarks.toybox.training.picture_task import PictureTask, as_pixels, flip, look, pick
from vitlens.devices import chosen_device
from vitlens.disk import atomic
from vitlens.model import ViTLens
from vitlens.train import Trainer
from vitlens.train.gradcache import Named

NOISE_LEVELS = 400
"""Embeddings are noised by up to so many of the noising schedule's 1000 steps."""
UNGUIDED = 0.1
"""Share of the training pictures drawn from no embedding at all: what guidance is measured against."""


def train_painter(
    folder: str | os.PathLike[str], model: ViTLens, pictures: np.ndarray, recipe: PainterRecipe | None = None
) -> Any:
    """Train the painter of `model`'s image embeddings on pictures, uint8 [n, 64, 64, 3]; returns the pipeline.

    An interrupted training goes on where it was.
    """
    recipe, home = recipe or PainterRecipe(), Path(folder)
    data = torch.from_numpy(pictures)
    autoencoder = Trainer(AutoencoderTask(home / "autoencoder", data, recipe)).run().model
    latents, embeddings = _prepared(home / "prepared.pt", autoencoder, model, data)
    autoencoder.register_to_config(scaling_factor=float(1 / latents.float().std()))
    torch.manual_seed(recipe.seed)
    pipe = build_pipeline(recipe, autoencoder, model, embeddings.flatten(0, 1))
    small = latents.float() * autoencoder.config.scaling_factor
    pipe.register_modules(unet=Trainer(DrawingTask(home / "drawing", pipe, small, embeddings, recipe)).run().model)
    return pipe


class Autoencoding(nn.Module):
    """Pictures [b, 3, 64, 64] in -1 ... 1 and noise for their small pictures [b, 4, 16, 16] -> pictures, and "kl" [b]."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, picture: Tensor, noise: Tensor) -> Named:
        found = self.module.encode(picture).latent_dist
        back = self.module.decode(found.mean + found.std * noise).sample
        return {"picture": back.float(), "kl": found.kl().float()}


class AutoencoderLoss(nn.Module):
    """Mean absolute and squared error, and a small price for leaving the normal distribution."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """What comes back of the pictures, and the pictures [b, 3, 64, 64] -> the loss."""
        back, picture = outputs["picture"], targets["picture"]
        return F.l1_loss(back, picture) + F.mse_loss(back, picture) + 1e-6 * outputs["kl"].mean()


class AutoencoderTask(PictureTask[Any]):
    """Pictures -> small pictures -> pictures."""

    def __init__(self, folder: Path, pictures: Tensor, recipe: PainterRecipe) -> None:
        super().__init__(recipe.autoencoder, folder, recipe, len(pictures))
        self.pictures = pictures
        torch.manual_seed(recipe.seed)
        self.module = build_autoencoder(recipe)
        self.network, self.loss = Autoencoding(self.module), AutoencoderLoss()

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """A picture, and the noise of its small picture."""
        picture = _centred(self.pictures[row])
        return {"picture": picture, "noise": torch.randn(4, LATENT, LATENT, generator=chance)}, {"picture": picture}

    def result(self) -> Any:
        """diffusers' module, frozen."""
        return self.module.cpu().eval().requires_grad_(False)


class Velocity(nn.Module):
    """Noised small pictures [b, 4, 16, 16], their times [b], and conditions [b, 2E] -> the diffusion model's velocity."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, small: Tensor, time: Tensor, condition: Tensor) -> Named:
        empty = small.new_zeros(len(small), 1, PROMPT_WIDTH)
        return {"velocity": self.unet(small, time, empty, class_labels=condition).sample.float()}


class VelocityLoss(nn.Module):
    """Mean squared error of the velocity (arXiv 2202.00512)."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The model's velocity and the true one, [b, 4, 16, 16] -> the loss."""
        return F.mse_loss(outputs["velocity"], targets["velocity"])


class DrawingTask(PictureTask[Any]):
    """The diffusion model of a pipeline: noise of any strength -> velocity, given a noised embedding.

    `latents` [2, n, 4, 16, 16] and `embeddings` [2, n, E] are of the pictures and of their mirror images.
    """

    def __init__(self, folder: Path, pipe: Any, latents: Tensor, embeddings: Tensor, recipe: PainterRecipe) -> None:
        super().__init__(recipe.drawing, folder, recipe, latents.shape[1])
        self.pipe, self.latents, self.embeddings = pipe, latents, embeddings
        self.network, self.loss = Velocity(pipe.unet), VelocityLoss()

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """A small picture under noise, the time that stands for how much of it, and what it is drawn from."""
        schedule, mirrored = self.pipe.scheduler, int(flip(chance))
        clean = self.latents[mirrored, row][None]
        noise = torch.randn(clean.shape, generator=chance)
        time = torch.tensor([pick(schedule.config.num_train_timesteps, chance)])
        condition = noised(self.pipe, self.embeddings[mirrored, row], chance) * (not flip(chance, UNGUIDED))
        inputs = {"small": schedule.add_noise(clean, noise, time)[0], "time": time[0], "condition": condition}
        return inputs, {"velocity": schedule.get_velocity(clean, noise, time)[0]}

    def result(self) -> Any:
        """The diffusion model, frozen."""
        return self.pipe.unet.cpu().eval().requires_grad_(False)


@torch.no_grad()
def noised(pipe: Any, embedding: Tensor, chance: torch.Generator) -> Tensor:
    """An embedding [E], noised by an amount of its own, with that amount beside it [2E]; the pipeline noises all alike."""
    from diffusers.models.embeddings import get_timestep_embedding

    level = torch.tensor([pick(NOISE_LEVELS, chance)])
    noise = torch.randn(1, len(embedding), generator=chance)
    mixed = pipe.image_noising_scheduler.add_noise(pipe.image_normalizer.scale(embedding[None]), noise, timesteps=level)
    amount = get_timestep_embedding(level, len(embedding), flip_sin_to_cos=True, downscale_freq_shift=0)
    return torch.cat([pipe.image_normalizer.unscale(mixed), amount], dim=1)[0]


def _centred(pictures: Tensor) -> Tensor:
    """uint8 [..., 64, 64, 3] -> [..., 3, 64, 64] in -1 ... 1."""
    return 2 * as_pixels(pictures) - 1


def _prepared(file: Path, autoencoder: nn.Module, model: ViTLens, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Small pictures [2, n, 4, 16, 16] and embeddings [2, n, E] of pictures and of their mirror images, made once."""
    if not file.is_file():
        both = (pictures, pictures.flip(2))
        device = chosen_device()
        compress: Any = autoencoder.to(device)
        latents = torch.stack([look(x, _centred, lambda part: compress.encode(part).latent_dist.mean, device) for x in both])
        autoencoder.cpu()
        tower = model.tower("image")
        embeddings = torch.stack([look(x, normalised, tower, model.device, torch.float32) for x in both])
        with atomic(file) as part:
            torch.save({"latents": latents, "embeddings": embeddings}, part)
    found = torch.load(file, weights_only=True)
    return found["latents"], found["embeddings"]

"""Image embeddings to pictures: Stable unCLIP 2.1 through diffusers, as SEED-LLaMA's de-tokenizer uses it."""

from __future__ import annotations

import inspect
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from vitlens.adapters.host_files import dtype_argument, import_diffusers, reading
from vitlens.adapters.running import memory
from vitlens.devices import chosen_device
from vitlens.errors import HostError, OptionError


class UnclipPixels:
    """Embeddings [b, E] of CLIP ViT-H-14 (E = 1024, at their own length) -> pictures, through a StableUnCLIPImg2ImgPipeline.

    Each picture depends on its embedding and the seed alone, not on what else is in the batch.

    Raises:
        HostError: a pipeline that takes no image embeddings, or of another width.
    """

    def __init__(
        self, pipeline: Any, *, width: int = 1024, steps: int = 20, guidance: float = 10.0, noise_level: int = 0
    ) -> None:
        name = type(pipeline).__name__
        takes = "image_embeds" in inspect.signature(pipeline.__call__).parameters
        numbers = getattr(getattr(pipeline, "unet", None), "config", {}).get("projection_class_embeddings_input_dim")
        if not takes or numbers is None:
            raise HostError(f"pixels: a StableUnCLIPImg2ImgPipeline is needed, found {name}")
        if numbers // 2 != width:  # the other half is the noise level
            raise HostError(
                f"pixels: {name} takes image embeddings of width {numbers // 2}, the SEED tokenizer gives {width}, of CLIP "
                "ViT-H-14 (laion2b): use stabilityai/stable-diffusion-2-1-unclip, not its -small variant"
            )
        if steps < 1 or guidance < 0 or noise_level < 0:
            raise OptionError(f"pixels: steps >= 1, guidance and noise_level >= 0, found {steps}, {guidance}, {noise_level}")
        self.pipeline = pipeline
        self.width, self.steps, self.guidance, self.noise_level = width, steps, guidance, noise_level

    @classmethod
    def from_pretrained(
        cls, name: str, *, width: int = 1024, dtype: torch.dtype | None = None, offload: bool = False, **options: Any
    ) -> UnclipPixels:
        """Load a pipeline by its Hub name or folder; `offload` keeps on the device only the part that computes.

        Raises:
            MissingDependencyError: no diffusers.
            ModelError: files that cannot be had or read.
            HostError: as the constructor; not enough memory; `offload` without an accelerator.
        """
        diffusers = import_diffusers("pictures")
        device = chosen_device()
        if offload and device.type == "cpu":
            raise HostError("pixels: offloading moves parts between CPU and an accelerator, and there is none here")
        kind = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
        with reading(f"{name}: a Stable unCLIP pipeline", "give the Hub name or the folder of one"):
            pipeline = diffusers.StableUnCLIPImg2ImgPipeline.from_pretrained(name, **dtype_argument(kind))
        made = cls(pipeline, width=width, **options)
        with memory(name, "offload it (pixels_offload=True)"):
            if offload:
                pipeline.enable_model_cpu_offload()
            else:
                pipeline.to(device)
        return made

    def draw(self, embeddings: Tensor, *, seed: int = 0) -> list[PIL.Image.Image]:
        """A picture of each embedding [b, E].

        Raises:
            HostError: another width, or not enough memory.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width:
            raise HostError(f"pixels: embeddings [b, {self.width}] are needed, found {list(embeddings.shape)}")
        if not len(embeddings):
            return []
        place = {"device": self.pipeline._execution_device, "dtype": self.pipeline.unet.dtype}
        with memory("the unCLIP pipeline", "offload it (pixels_offload=True), or draw fewer pictures at once"):
            return list(
                self.pipeline(
                    prompt=[""] * len(embeddings),  # the pipeline counts the batch by its prompts
                    image_embeds=embeddings.to(**place),
                    guidance_scale=self.guidance,
                    noise_level=self.noise_level,
                    num_inference_steps=self.steps,
                    generator=[torch.Generator().manual_seed(seed) for _ in embeddings],
                ).images
            )

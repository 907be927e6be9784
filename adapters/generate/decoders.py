"""A diffusers pipeline behind a decoder card: loaded, checked against its card, and driven by an embedding, a text or a picture.

decoder = load_decoder("kandinsky-2.2", offload="model")
decoder = Decoder(card, my_pipeline)                           # a pipeline of your own
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vitlens.adapters.generate.clip_reference import PICTURES, ClipReference
from vitlens.adapters.generate.conditioning import Condition, call_arguments
from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_card
from vitlens.adapters.generate.outputs import Audio, Mesh, Video
from vitlens.adapters.host_files import dtype_argument, import_diffusers, reading
from vitlens.adapters.running import memory
from vitlens.errors import HostError, ModelError, OptionError

OURS = {"generator", "output_type", "return_dict", "image", "image_embeds", "negative_image_embeds", "ip_adapter_image_embeds"}
OURS |= {"prompt", "negative_prompt", "prompt_embeds", "negative_prompt_embeds"}
"""Arguments of a pipeline's call that the decoder sets."""


class Decoder:
    """A pipeline and its card. The pipeline is any diffusers pipeline of the card's class, or an object that is called like one.

    `image_encoder` (a CLIPVisionModelWithProjection or a ClipReference) is the CLIP of the decoder's space where the pipeline has
    none; `norm` is the length of embeddings that it was trained on, where nothing tells it.

    Raises:
        HostError: a pipeline that is not what its card says.
    """

    def __init__(self, card: DecoderCard, pipeline: Any, *, image_encoder: Any = None, norm: float | None = None) -> None:
        self.card, self.pipeline = card, pipeline
        self.image_encoder = image_encoder or getattr(pipeline, "image_encoder", None)
        if norm is not None and not (math.isfinite(norm) and norm > 0):
            raise OptionError(f"decoder {card.name}: norm must be a positive number, found {norm}")
        self._norm = (norm, "given") if norm is not None else (card.norm, "its card") if card.norm is not None else None
        self._check()

    @property
    def name(self) -> str:
        """Name of its card."""
        return self.card.name

    @property
    def device(self) -> torch.device:
        """Where the pipeline computes."""
        return torch.device(getattr(self.pipeline, "_execution_device", getattr(self.pipeline, "device", "cpu")))

    @property
    def reads_text(self) -> bool:
        """Whether a text can be given: the card says so and the pipeline has its text encoder."""
        return self.card.text is not None and getattr(self.pipeline, "text_encoder", "not a part of it") is not None

    @property
    def rate(self) -> int | None:
        """Hertz of the sound that comes out."""
        for part in ("vocoder", "vae"):
            found = getattr(getattr(getattr(self.pipeline, part, None), "config", None), "sampling_rate", None)
            if found:
                return int(found)
        return self.card.rate

    def _check(self) -> None:
        card, width = self.card, self._width()
        if card.space is not None and width is not None and width != card.space.dim:
            raise HostError(
                f"decoder {self.name}: its card says embeddings of {card.space.dim} values ({card.space.name}), the UNet of this "
                f"pipeline takes {width}; give the pipeline that belongs to the card, or a card for this pipeline"
            )
        if card.embedding == "unclip" and getattr(self.pipeline, "image_encoder", 0) is None:
            raise HostError(f"decoder {self.name}: diffusers needs the image_encoder in this pipeline; load it with one")
        if card.output == "audio" and self.rate is None:
            raise HostError(f"decoder {self.name}: no sampling rate, of the pipeline or on the card; set rate= on the card")
        if card.output == "video" and not card.fps:
            raise HostError(f"decoder {self.name}: its card does not say the frames a second; set fps= on it")
        unknown = [name for name in card.defaults if not self._takes(name)]
        if unknown:
            kind = type(self.pipeline).__name__
            raise HostError(f"decoder {self.name}: its card sets {', '.join(unknown)}, which {kind} does not take")

    def _width(self) -> int | None:
        """The width of the embeddings that the UNet takes, where it can be read."""
        unet = getattr(self.pipeline, "unet", None)
        if self.card.embedding is None or unet is None:
            return None
        if self.card.embedding == "unclip":
            width = unet.config.projection_class_embeddings_input_dim  # the embedding, and as many values for its noise level
            return width // 2 if width else 0
        if self.card.embedding == "kandinsky":
            return unet.config.encoder_hid_dim or 0
        layers = getattr(unet.encoder_hid_proj, "image_projection_layers", None)
        if not layers:
            raise HostError(f"decoder {self.name}: no IP-Adapter in this pipeline; call its load_ip_adapter first")
        return layers[0].image_embeds.in_features

    @property
    def norm(self) -> float:
        """Length of the embeddings that the decoder expects.

        As given, or as the card says, or the root mean square that the pipeline's image normalizer was fitted to, or measured:
        the mean over synthetic pictures of what the image encoder of its space gives.

        Raises:
            HostError: nothing tells it.
        """
        return self.norm_and_source()[0]

    def norm_and_source(self, fitted: float | None = None) -> tuple[float, str]:
        """`norm`, and where it comes from; `fitted` is the length a bridge saw, which goes before measuring."""
        found = self._norm or self._normalizer_norm()
        if found is None and fitted is not None:
            return fitted, "the targets that the bridge was fitted on"
        if found is None:
            found = self._norm = self.reference.norm(), f"measured on {PICTURES} synthetic pictures"
        return found

    def _normalizer_norm(self) -> tuple[float, str] | None:
        normalizer = getattr(self.pipeline, "image_normalizer", None)
        if normalizer is None:
            return None
        mean, std = normalizer.mean.detach().float(), normalizer.std.detach().float()
        if bool((mean == 0).all() and (std == 1).all()):  # as it is made: fitted to nothing
            return None
        return float((mean.square().sum() + std.square().sum()).sqrt()), "the pipeline's image normalizer"

    @property
    def reference(self) -> ClipReference:
        """The image encoder of the decoder's space.

        Raises:
            HostError: there is none.
        """
        if isinstance(self.image_encoder, ClipReference):
            return self.image_encoder
        if self.image_encoder is None:
            space = self.card.space.name if self.card.space else "its space"
            known = f" ({self.card.image_encoder} on the Hub)" if self.card.image_encoder else ""
            raise HostError(
                f"decoder {self.name}: the image encoder of {space} is needed, for the length of its embeddings or the "
                f"unconditional one; give image_encoder=, a CLIPVisionModelWithProjection{known}, or ClipReference.from_model "
                f"of a model of that space"
            )
        return ClipReference.from_huggingface(self.image_encoder)

    def place(self, x: Tensor) -> Tensor:
        """`x` where the pipeline computes, in its precision."""
        dtype = getattr(getattr(self.pipeline, "unet", None), "dtype", torch.float32)
        return x.to(self.device, dtype)

    def options(self, *, steps: int | None = None, guidance: float | None = None, **options: Any) -> dict[str, Any]:
        """The card's defaults with what was chosen instead: arguments of the pipeline's call.

        Raises:
            OptionError: a value that is not allowed, or a name that the pipeline does not take.
        """
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise OptionError(f"steps must be a whole number, 1 or more, found {steps!r}")
        if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
            raise OptionError(f"guidance must be a number, 0 or more, found {guidance!r}")
        chosen = {"num_inference_steps": steps, "guidance_scale": guidance}
        chosen = {name: value for name, value in chosen.items() if value is not None} | options
        wrong = [name for name in chosen if name in OURS or not self._takes(name)]
        if wrong:
            free = [name for name in self._accepted() if name not in OURS | {"self", "args", "kwargs"}]
            raise OptionError(f"decoder {self.name} does not take {', '.join(wrong)}; it takes {', '.join(free)}")
        return {**self.card.defaults, **chosen}

    def check_words(self, prompt: str, negative: str) -> None:
        """Raises OptionError for words that the pipeline does not take."""
        if (prompt or negative) and not self.reads_text:
            raise OptionError(f"decoder {self.name}: this pipeline has no text encoder, found prompt {prompt or negative!r}")
        if negative and not self._takes("negative_prompt"):
            raise OptionError(f"decoder {self.name} takes no negative prompt, found {negative!r}; say what you want instead")

    def _accepted(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.pipeline.__call__).parameters

    def _takes(self, name: str) -> bool:
        accepted = self._accepted()
        return name in accepted or "generator" not in accepted  # a wrapper that passes everything on

    def generate(self, condition: Condition, *, seed: int = 0, progress: bool | None = None, **options: Any) -> Any:
        """A PIL picture, an `Audio`, a `Video` or a `Mesh` from `condition`; the same seed gives the same one.

        `options` are those of `Decoder.options`; `progress` shows or hides the pipeline's own bar.

        Raises:
            OptionError: options that the pipeline does not take.
            HostError: the device's memory does not hold it.
        """
        if progress is not None and hasattr(self.pipeline, "set_progress_bar_config"):
            self.pipeline.set_progress_bar_config(disable=not progress)
        arguments = call_arguments(self, condition, self.options(**options))
        arguments["generator"] = torch.Generator("cpu").manual_seed(seed)  # the same numbers whatever the device
        arguments["output_type"] = {"image": "pil", "video": "pil", "audio": "np", "3d": "mesh"}[self.card.output]
        with _memory(self.name), _surface_expected(self):
            return self._unpack(self.pipeline(**arguments))

    def _unpack(self, made: Any) -> Any:
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            raise HostError(
                f"decoder {self.name}: the pipeline's safety checker blackened the picture; try another seed or prompt"
            )
        if self.card.output == "image":
            return made.images[0]
        if self.card.output == "audio":
            samples = np.asarray(made.audios[0], dtype=np.float32)
            return Audio(samples.T if samples.ndim == 2 else samples, self.rate or 0)
        if self.card.output == "video":
            return Video(list(made.frames[0]), float(self.card.fps or 0))
        mesh = made.images[0]
        channels = [mesh.vertex_channels[name].detach().float().cpu() for name in "RGB"] if mesh.vertex_channels else []
        colors = (torch.stack(channels, dim=-1).clamp(0, 1) * 255).round().byte().numpy() if channels else None
        return Mesh(mesh.verts.detach().float().cpu().numpy(), mesh.faces.detach().cpu().numpy(), colors)


@contextmanager
def _surface_expected(decoder: Decoder) -> Iterator[None]:
    """diffusers fails on a field without a surface while it looks for the colours of no vertices."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if decoder.card.output != "3d" or "non-empty" not in str(error):
            raise
        raise HostError(f"decoder {decoder.name}: nothing solid came out; try another seed, more steps or other words") from error


def _memory(name: str) -> AbstractContextManager[None]:
    advice = f"try load_decoder({name!r}, offload='model') (or 'sequential', slower and smaller), dtype=torch.float16, "
    return memory(f"decoder {name}", f"{advice}a smaller height and width, or fewer frames")


def load_decoder(
    name: str | DecoderCard,
    pipeline: Any = None,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    offload: Literal["model", "sequential"] | None = None,
    image_encoder: Any = None,
    norm: float | None = None,
) -> Decoder:
    """A decoder by the name of its card, or by a card of your own.

    `pipeline` is a local folder or another repository in the place of the card's, or a pipeline that is loaded already (then
    `dtype`, `device` and `offload` are its own affair). Half precision on an accelerator, float32 on the CPU. `offload` keeps
    the weights in main memory: whole parts at a time ("model") or layer by layer ("sequential").

    Raises:
        OptionError: no such decoder, or offloading without an accelerator.
        ModelError: weights that are not on this machine and cannot be fetched.
        HostError: a pipeline that is not what the card says.
        MissingDependencyError: diffusers is not installed.
    """
    card = name if isinstance(name, DecoderCard) else decoder_card(name)
    if pipeline is None or isinstance(pipeline, str | os.PathLike):
        pipeline = _load_pipeline(card, os.fspath(pipeline) if pipeline else card.repo, dtype, device, offload)
    return Decoder(card, pipeline, image_encoder=image_encoder, norm=norm)


def _load_pipeline(card: DecoderCard, source: str, dtype: torch.dtype | None, device: Any, offload: str | None) -> Any:
    if offload not in (None, "model", "sequential"):
        raise OptionError(f"offload must be None, 'model' or 'sequential', found {offload!r}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if offload and place.type == "cpu":
        raise OptionError(f"offload={offload!r} moves weights to an accelerator and back; there is none here")
    if not source:
        raise OptionError(f"decoder {card.name}: its card names no repository; give pipeline=")
    if Path(source).is_dir() and not (Path(source) / "model_index.json").is_file():
        raise ModelError(f"{source}: no model_index.json in it; give the folder of a saved diffusers pipeline")
    diffusers = import_diffusers("decoders")
    chosen = dtype_argument(dtype or (torch.float32 if place.type == "cpu" else getattr(torch, card.half)))
    with _memory(card.name), reading(f"decoder {card.name}: {source}", "`hf download` it, or give pipeline="):
        parts = {k: getattr(diffusers, kind).from_pretrained(r, **chosen) for k, (kind, r) in card.parts.items()}
        made = getattr(diffusers, card.pipeline).from_pretrained(source, **chosen, **parts)
        if card.adapter:
            made.load_ip_adapter(**card.adapter)
    with _memory(card.name):
        if offload:
            getattr(made, f"enable_{offload}_cpu_offload")(device=place)
        else:
            made.to(place)
    return made

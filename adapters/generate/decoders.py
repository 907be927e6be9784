"""A diffusers pipeline behind a decoder card: loaded, checked against its card, and driven by an embedding, a text or a picture.

decoder = load_decoder("kandinsky-2.2", offload="model")
decoder = Decoder(card, my_pipeline)                           # a pipeline of your own
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from vitlens.adapters.generate.clip_reference import PICTURES, ClipReference
from vitlens.adapters.generate.conditioning import Condition, empty_context, mixed_contexts, prompt_arguments
from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_card
from vitlens.adapters.generate.embedding_inputs import EMBEDDING_INPUTS, EmbeddingInput
from vitlens.adapters.generate.outputs import MEDIA
from vitlens.adapters.generate.pipelines import decoder_memory, load_pipeline
from vitlens.checks import number, whole
from vitlens.errors import HostError, OptionError

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
        if norm is not None:
            number(f"decoder {card.name}: norm", norm, above=0)
        self._norm = (norm, "given") if norm is not None else (card.norm, "its card") if card.norm is not None else None
        self._check()

    @property
    def name(self) -> str:
        """Name of its card."""
        return self.card.name

    @property
    def embedding_input(self) -> EmbeddingInput | None:
        """How the pipeline takes an embedding; None: it takes none."""
        return None if self.card.embedding is None else EMBEDDING_INPUTS[self.card.embedding]

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
        lacking = MEDIA[card.output].lacking(rate=self.rate, fps=card.fps)
        if lacking:
            raise HostError(f"decoder {self.name}: {lacking}")
        unknown = [name for name in card.defaults if not self._takes(name)]
        if unknown:
            kind = type(self.pipeline).__name__
            raise HostError(f"decoder {self.name}: its card sets {', '.join(unknown)}, which {kind} does not take")

    def _width(self) -> int | None:
        """The width of the embeddings that the UNet takes, where it can be read."""
        if self.embedding_input is None:
            return None
        try:
            return self.embedding_input.width(self.pipeline)
        except HostError as error:
            raise HostError(f"decoder {self.name}: {error}") from error

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
        if steps is not None:
            whole("steps", steps, least=1)
        if guidance is not None:
            number("guidance", guidance, least=0)
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
        """A PIL picture, a `Waveform`, a `VideoClip` or a `TriangleMesh` from `condition`; the same seed gives the same one.

        `options` are those of `Decoder.options`; `progress` shows or hides the pipeline's own bar.

        Raises:
            OptionError: options that the pipeline does not take.
            HostError: the device's memory does not hold it.
        """
        if progress is not None and hasattr(self.pipeline, "set_progress_bar_config"):
            self.pipeline.set_progress_bar_config(disable=not progress)
        medium = MEDIA[self.card.output]
        arguments = self._arguments(condition, self.options(**options))
        arguments["generator"] = torch.Generator("cpu").manual_seed(seed)  # the same numbers whatever the device
        arguments["output_type"] = medium.output_type
        with decoder_memory(self.name), _surface_expected(self):
            made = self.pipeline(**arguments)
            if any(getattr(made, "nsfw_content_detected", None) or ()):
                raise HostError(
                    f"decoder {self.name}: the pipeline's safety checker blackened the picture; try another seed or prompt"
                )
            return medium.of(made, rate=self.rate or 0, fps=self.card.fps or 0)

    def _arguments(self, condition: Condition, options: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of the pipeline's call for `condition`; `options` are those that steer it (steps, guidance, size ...)."""
        guided = float(options.get("guidance_scale", self._default("guidance_scale", 7.5))) > 1
        made: dict[str, Any] = {}
        if self.embedding_input is not None:
            if condition.embedding is None:
                raise OptionError(f"decoder {self.name} needs an embedding")
            embedding = self.place(condition.embedding[None])
            made |= self.embedding_input.arguments(embedding, lambda: self.place(self.reference.blank()), guided=guided)
        if self.card.picture:
            made["image"] = condition.picture
        if self.card.text is not None:
            made |= self._text_arguments(condition, guided)
        return made | dict(options)

    def _text_arguments(self, condition: Condition, guided: bool) -> dict[str, Any]:
        if not self.reads_text:
            if condition.sentence:
                raise HostError(f"decoder {self.name}: no text encoder, cannot take the prompt {condition.sentence!r}")
            return {name: self.place(zeros) for name, zeros in empty_context(self.pipeline).items()}
        if len(condition.prompts) > 1 and self.card.mixes:
            return mixed_contexts(self.pipeline, condition, self.card.mixes, device=self.device, guided=guided)
        return prompt_arguments(condition)

    def _default(self, name: str, otherwise: float) -> float:
        found = self._accepted().get(name)
        return otherwise if found is None or found.default in (None, found.empty) else found.default


@contextmanager
def _surface_expected(decoder: Decoder) -> Iterator[None]:
    """diffusers fails on a field without a surface while it looks for the colours of no vertices."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if decoder.card.output != "3d" or "non-empty" not in str(error):
            raise
        raise HostError(f"decoder {decoder.name}: nothing solid came out; try another seed, more steps or other words") from error


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
        pipeline = load_pipeline(card, pipeline, dtype=dtype, device=device, offload=offload)
    return Decoder(card, pipeline, image_encoder=image_encoder, norm=norm)

"""What adapters of multimodal chat models share: loading, reading inputs stream by stream, and the calls a user makes.

A host is a language model of transformers with a ViT in front of it. A subclass turns prompts and inputs into rows of input
embeddings (`_rows`), in options of its own; everything before and behind is here and in `language`.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from vitlens.adapters.chat.language import ChatLanguage
from vitlens.adapters.host_files import HostFiles, find_host, load_host
from vitlens.adapters.lenses import Lenses, check_streams, plugged_in
from vitlens.adapters.splice import HostTower, LensStream, LensTokens, Positions
from vitlens.checks import known
from vitlens.errors import HostError, OptionError
from vitlens.modality import get_modality
from vitlens.sources import name_of
from vitlens.words import unknown_to

if TYPE_CHECKING:
    from typing_extensions import Self

BUILT_IN = ("image", "video")
"""Streams that go through the host's own patch embedding and need no lens."""
DESCRIBE = "Describe this object in details."

Inputs = Mapping[str, Any]
"""Stream -> an item, or a list with one item per prompt; the order of the streams is the order the host hears them in."""
ReadOptions = Mapping[str, Mapping[str, Any]]
"""Stream -> options of its reader."""


class Plugging(TypedDict, total=False):
    """Options of every host: what is plugged in, and how strictly."""

    lenses: Lenses | None
    allow_other_vit: bool
    positions: Positions
    video_frames: int


class ChatHost(ABC):
    """A multimodal chat model with lenses plugged into its ViT. Neither the model nor a lens is moved or changed.

    `lenses` maps a stream's name to its lens (a ViTLens, a `LensStream`, or what `vitlens.load` takes). A lens must have been
    trained against the host's own ViT, unless `allow_other_vit`; `positions="interpolate"` lets it give another number of tokens
    than the ViT has positions for. Of a video `video_frames` frames are taken, each is seen as a picture.

    Raises:
        HostError: a lens, a tokenizer or a host that do not fit together.
        OptionError: a lens under the name of a built-in stream ("image", "video").
    """

    model_type: ClassVar[str]
    """In transformers' configuration."""
    model_class: ClassVar[str]
    """In transformers."""
    needs: ClassVar[str]
    """An attribute of a model that can generate."""
    never_quantised: ClassVar[tuple[str, ...]]
    """Modules that `load_in_8bit` leaves whole: all but the language model."""
    own_options: ClassVar[tuple[str, ...]] = ()
    """Options of a call that are the adapter's and not the generation's."""

    defaults: Mapping[str, Any] = MappingProxyType({})
    """Generation options, any of which a call may override; give an instance others if you like."""

    def __init__(
        self,
        model: Any,
        vision: Callable[[], nn.Module],
        *,
        tokenizer: Any,
        image_processor: Any,
        lenses: Lenses | None = None,
        allow_other_vit: bool = False,
        positions: Positions = "strict",
        video_frames: int = 8,
    ) -> None:
        found = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if found != self.model_type or not hasattr(model, self.needs):
            raise HostError(f"transformers' {self.model_class} is needed, found {type(model).__name__} ({found})")
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self._vision = vision
        if any(parameter.is_meta for parameter in vision().parameters()):
            raise HostError("the host's ViT is offloaded: lenses need it in memory; keep it on a device in device_map")
        self.name = type(model).__name__
        self.tower = HostTower(vision, name=self.name, positions=positions, blocks=self._depth(model))
        self.lenses: dict[str, LensStream] = plugged_in(self.tower, lenses, taken=BUILT_IN, allow_other_vit=allow_other_vit)
        self._pictures = {"image": get_modality("image"), "video": get_modality("video", frames=video_frames)}
        self.language = ChatLanguage(self._language, tokenizer, name=self.name, parts=lambda: [model, *self.lenses.values()])

    @classmethod
    def from_pretrained(
        cls,
        mllm: str | os.PathLike[str],
        lenses: Lenses | None = None,
        *,
        dtype: torch.dtype | None = None,
        device_map: Any = None,
        load_in_8bit: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a host with its tokenizers from a Hub repository or a folder, and plug lenses in; `options` are the constructor's.

        `dtype` None is bfloat16 on CUDA, else float32. `load_in_8bit` quantises the language model only (bitsandbytes);
        `device_map` is accelerate's, the ViT must stay on a device.

        Raises:
            ModelError: a host or a lens that is not here and cannot be fetched.
            OptionError: an option that there is not.
            HostError: another kind of model, misfits, or not enough memory.
        """
        known(f"{cls.__name__}: unknown option", options, cls._constructor_options())
        files = find_host(mllm, cls.model_type, revision=revision)
        parts = cls._parts(files)
        import transformers

        kind = getattr(transformers, cls.model_class)
        placed = {"dtype": dtype, "device_map": device_map, "load_in_8bit": load_in_8bit}
        model = load_host(files, kind, plain=cls.never_quantised, unused=cls._unused, **placed)
        return cls(model, **parts, lenses=lenses, **options)

    @classmethod
    def _constructor_options(cls) -> list[str]:
        """What may be chosen of a host that is loaded with its parts."""
        return [name for name in Plugging.__annotations__ if name != "lenses"]

    @classmethod
    def _parts(cls, files: HostFiles) -> dict[str, Any]:
        """The constructor's keyword arguments that lie beside the weights.

        The parts, not the processor: it would add an image token that the embedding table may not have.
        """
        from transformers import AutoImageProcessor, AutoTokenizer

        return {"tokenizer": files.load(AutoTokenizer), "image_processor": files.load(AutoImageProcessor)}

    @classmethod
    def _unused(cls, model: Any) -> Iterable[nn.Parameter]:
        """Parameters of a model that are never run here."""
        return ()

    @property
    def streams(self) -> list[str]:
        """Names of the inputs that this host takes."""
        return [*BUILT_IN, *self.lenses]

    @property
    def device(self) -> torch.device:
        """Where the host's ViT is. Lenses compute where they are; their tokens come here."""
        return next(self._vision().parameters()).device

    @classmethod
    def _depth(cls, model: Any) -> int | None:
        """How many blocks of the ViT the host runs at most; None: all."""
        return None

    @abstractmethod
    def _language(self) -> Any:
        """The module that generates from `inputs_embeds`."""

    @abstractmethod
    def _rows(self, prompts: str | Sequence[str], inputs: Inputs, read_options: ReadOptions | None, **own: Any) -> list[Tensor]:
        """Per sample: what the language model goes on from, as embeddings [n, H]; `own` are of `own_options`."""

    # ---- what a user asks

    def generate(
        self, prompts: str | Sequence[str], inputs: Inputs, *, read_options: ReadOptions | None = None, **options: Any
    ) -> list[str]:
        """Answers to a prompt, or one per sample, about what the streams hold.

        `inputs` maps streams to an item or a list of b items, as `ViTLens.encode` takes them; `read_options[stream]` goes to the
        reader of each. Further keywords are the adapter's `own_options`, and generation options of transformers, by default
        `defaults`.

        Raises:
            ModalityError, InputError, OptionError, HostError: before anything is generated.
        """
        own, generation = self._sorted(options)
        self._check_words(prompts)
        return self.language.generate(lambda: self._rows(prompts, inputs, read_options, **own), generation, self.defaults)

    def stream(self, prompt: str, inputs: Inputs, *, read_options: ReadOptions | None = None, **options: Any) -> Iterator[str]:
        """The answer to one prompt, piece by piece, of greedy search or sampling (without beams); else as `generate`."""
        own, generation = self._sorted(options)
        self._check_words(prompt)
        return self.language.stream(lambda: self._rows(prompt, inputs, read_options, **own), generation, self.defaults)

    def describe(self, inputs: Inputs, prompt: str = DESCRIBE, **options: Any) -> list[str]:
        """A description of each item: `generate` with a prompt that asks for it."""
        return self.generate(prompt, inputs, **options)

    def embeds(
        self, prompts: str | Sequence[str], inputs: Inputs, *, read_options: ReadOptions | None = None, **own: Any
    ) -> tuple[Tensor, Tensor]:
        """What the language model gets: inputs_embeds [b, n, H] and attention_mask [b, n], with gradients."""
        self._check_own(own)
        return self.language.batch(self._rows(prompts, inputs, read_options, **own))

    def loss(
        self,
        prompts: str | Sequence[str],
        inputs: Inputs,
        targets: str | Sequence[str],
        *,
        read_options: ReadOptions | None = None,
        **own: Any,
    ) -> Tensor:
        """Cross entropy of the target answers, one per sample; gradients reach the lenses and all behind them.

        What trains is yours to say (`requires_grad`, train and evaluation mode): nothing is frozen or switched here.
        """
        self._check_own(own)
        return self.language.loss(lambda: self._rows(prompts, inputs, read_options, **own), targets)

    def _check_words(self, prompts: str | Sequence[str]) -> None:
        """Warn of words that the language model has no token for."""
        texts = [prompts] if isinstance(prompts, str) else [text for text in prompts if isinstance(text, str)]
        if words := unknown_to(self.tokenizer, dict.fromkeys(texts)):
            warnings.warn(words, stacklevel=3)

    def _sorted(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The adapter's own options, and those of generation."""
        own = {name: value for name, value in options.items() if name in self.own_options}
        return own, {name: value for name, value in options.items() if name not in own}

    def _check_own(self, own: Mapping[str, Any]) -> None:
        known("unknown option", own, self.own_options)

    # ---- before the language model

    def _gather(self, prompts: str | Sequence[str], inputs: Inputs) -> tuple[list[str], dict[str, list[Any]]]:
        """Prompts and items of the streams as lists, each of the batch's length or of length 1.

        Raises:
            ModalityError: a stream this host does not have.
            OptionError: nothing given, or lengths that do not fit together.
        """
        if not isinstance(inputs, Mapping):
            raise OptionError(f'inputs must be a dict such as {{"image": picture}}, found {type(inputs).__name__}')
        check_streams(inputs, self.streams)
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise OptionError(f"prompts must be texts, found {name_of(wrong)}")
        items = {name: list(given) if isinstance(given, list) else [given] for name, given in inputs.items()}
        lengths = {"prompts": len(texts), **{name: len(given) for name, given in items.items()}}
        count = max(lengths.values())
        if not count or any(length not in (1, count) for length in lengths.values()):
            found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise OptionError(f"one of each per sample (or one for all) is needed, found {found}. A list is a list of items")
        return texts * (count // len(texts)), items

    def _look(self, items: Mapping[str, list[Any]], count: int, read_options: ReadOptions | None) -> dict[str, list[LensTokens]]:
        """Stream -> what it hands to the ViT, one `LensTokens` of `count` rows per view.

        Raises:
            InputError: an item that cannot be read.
        """
        check_streams(read_options or {}, self.streams)
        found: dict[str, list[LensTokens]] = {}
        for name, given in items.items():
            options = dict((read_options or {}).get(name, {}))
            views = self._see(name, given, options) if name in BUILT_IN else self._sense(self.lenses[name], given, options)
            found[name] = [replace(view, x=view.x.expand(count, -1, -1)) for view in views]
        return found

    def _see(self, name: str, items: list[Any], options: dict[str, Any]) -> list[LensTokens]:
        """Pictures, or each frame of videos, as the host itself prepares and embeds them."""
        samples = [self._pictures[name].load(item, **options).data for item in items]
        frames = [list(views) for views in zip(*samples, strict=True)] if name == "video" else [samples]
        return [self.tower.image_tokens(self._pixels(pictures)) for pictures in frames]

    def _pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        made = [PIL.Image.fromarray(picture) for picture in pictures]
        return self.image_processor(images=made, return_tensors="pt")["pixel_values"].to(self.device)

    def _sense(self, stream: LensStream, items: list[Any], options: dict[str, Any]) -> list[LensTokens]:
        return stream(stream.read(items, options))


@contextmanager
def naming(stream: str) -> Iterator[None]:
    """Say which stream a misfit is about."""
    try:
        yield
    except HostError as error:
        raise HostError(f"stream {stream!r}: {error}") from error

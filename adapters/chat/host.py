"""What adapters of multimodal chat models share: reading inputs stream by stream, and generation from embeddings.

A host is a language model of transformers with a ViT in front of it. A subclass turns prompts and inputs into rows of input
embeddings; everything before (reading, lenses, checks) and behind (padding, generation, streaming, loss) is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vitlens.adapters.generation import (
    check_generation_options,
    check_streaming,
    check_vocabulary,
    device_of,
    marks_written,
    own_repetition_penalty,
    pad_id,
)
from vitlens.adapters.running import evaluating, in_background, memory
from vitlens.adapters.splice import HostTower, LensStream, LensTokens, lens_streams
from vitlens.errors import HostError, ModalityError, OptionError
from vitlens.modality import get_modality
from vitlens.model import ViTLens
from vitlens.sources import name_of

BUILT_IN = ("image", "video")
"""Streams that go through the host's own patch embedding and need no lens."""
NEW_TOKENS = 256
"""Of an answer, at most, where neither a call nor `defaults` says it."""
DESCRIBE = "Describe this object in details."

Inputs = Mapping[str, Any]
"""Stream -> an item, or a list with one item per prompt; the order of the streams is the order the host hears them in."""


class ChatHost(ABC):
    """A multimodal chat model with lenses plugged into its ViT. Neither the model nor a lens is moved or changed.

    `lenses` maps a stream's name to its lens (a ViTLens, a `LensStream`, or what `vitlens.load` takes). A lens must have been
    trained against the host's own ViT, unless `allow_other_vit`; `positions="interpolate"` lets it give another number of tokens
    than the ViT has positions for. Of a video `video_frames` frames are taken, each is seen as a picture.

    Raises:
        HostError: a lens or a tokenizer that does not fit the host.
        OptionError: a lens under the name of a built-in stream.
    """

    defaults: Mapping[str, Any] = MappingProxyType({})
    """Generation options, any of which a call may override; give an instance others if you like."""

    def __init__(
        self,
        model: Any,
        vision: Callable[[], nn.Module],
        *,
        tokenizer: Any,
        image_processor: Any,
        lenses: Mapping[str, ViTLens | LensStream | str] | None = None,
        allow_other_vit: bool = False,
        positions: Literal["strict", "interpolate"] = "strict",
        video_frames: int = 8,
    ) -> None:
        taken = [name for name in BUILT_IN if name in (lenses or {})]
        if taken:
            raise OptionError(f"lens {taken[0]!r}: the host sees {taken[0]}s itself; give the lens another name")
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self._vision = vision
        if any(parameter.is_meta for parameter in vision().parameters()):
            raise HostError("the host's ViT is offloaded: lenses need it in memory; keep it on a device in device_map")
        self.name = type(model).__name__
        self.tower = HostTower(vision, name=self.name, positions=positions)
        self.lenses: dict[str, LensStream] = lens_streams(lenses or {})
        self.tower.check(*self.lenses.values(), allow_other_vit=allow_other_vit)
        self._pictures = {"image": get_modality("image"), "video": get_modality("video", frames=video_frames)}
        check_vocabulary(tokenizer, self._embedding, self.name)
        self._pad = pad_id(tokenizer)

    @property
    def streams(self) -> list[str]:
        """Names of the inputs that this host takes."""
        return [*BUILT_IN, *self.lenses]

    @property
    def device(self) -> torch.device:
        """Where the host's ViT is. Lenses compute where they are; their tokens come here."""
        return next(self._vision().parameters()).device

    @property
    @abstractmethod
    def _language(self) -> Any:
        """The module that generates from `inputs_embeds`."""

    @property
    def _embedding(self) -> Any:
        return self._language.get_input_embeddings()

    @property
    def _is_encoder_decoder(self) -> bool:
        return bool(self._language.config.is_encoder_decoder)

    @abstractmethod
    def generate(self, prompts: str | Sequence[str], inputs: Inputs, **options: Any) -> list[str]:
        """What the host answers."""

    def describe(self, inputs: Inputs, prompt: str = DESCRIBE, **options: Any) -> list[str]:
        """A description of each item: `generate` with a prompt that asks for it."""
        return self.generate(prompt, inputs, **options)

    # ---- before the language model

    def _gather(self, prompts: str | Sequence[str], inputs: Inputs) -> tuple[list[str], dict[str, list[Any]]]:
        """Prompts and items of the streams as lists, each of the batch's length or of length 1.

        Raises:
            ModalityError: a stream this host does not have.
            OptionError: nothing given, or lengths that do not fit together.
        """
        if not isinstance(inputs, Mapping):
            raise OptionError(f'inputs must be a dict such as {{"image": picture}}, found {type(inputs).__name__}')
        self._know(inputs)
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

    def _know(self, names: Mapping[str, Any]) -> None:
        for name in names:
            if name not in self.streams:
                known = ", ".join(self.streams)
                raise ModalityError(f"no stream {name!r}: there is {known}; another one needs a lens (lenses={{{name!r}: ...}})")

    def _look(
        self, items: Mapping[str, list[Any]], count: int, read_options: Mapping[str, Mapping[str, Any]] | None
    ) -> dict[str, list[LensTokens]]:
        """Stream -> what it hands to the ViT, one `LensTokens` of `count` rows per view.

        Raises:
            InputError: an item that cannot be read.
        """
        self._know(read_options or {})
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

    # ---- the language model

    def _ids(self, text: str) -> list[int]:
        """Token ids of a prompt: a decoder's begin with BOS (once) and do not end; an encoder's as its tokenizer makes them."""
        bos = self.tokenizer.bos_token_id
        written = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        ids = list(self.tokenizer(text, add_special_tokens=not written)["input_ids"])
        if self._is_encoder_decoder or written:
            return ids
        # Vicuna's tokenizer names another BOS than the one it writes: what it writes is taken.
        begins, ends = marks_written(self.tokenizer)
        ids = ids[:-1] if ends else ids
        return ids if begins or bos is None else [bos, *ids]

    def _embed(self, ids: Sequence[int]) -> Tensor:
        """Token ids -> input embeddings [n, H]."""
        return self._embedding(torch.tensor(list(ids), dtype=torch.long, device=device_of(self._embedding)))

    def _batch(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows [n, H] of any length -> inputs_embeds [b, n, H] and attention_mask [b, n]; padded left for decoders."""
        side = "right" if self._is_encoder_decoder else "left"
        masks = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
        embeds = pad_sequence(list(rows), batch_first=True, padding_side=side)
        return embeds, pad_sequence(masks, batch_first=True, padding_side=side)

    def _generate(self, make_rows: Callable[[], list[Tensor]], options: Mapping[str, Any]) -> list[str]:
        """Answers to the rows [n, H] that `make_rows` makes."""
        check_generation_options(options)
        with self._answering():
            embeds, mask = self._batch(make_rows())
            settings = self._generation(options, embeds.shape[1])
            ids = self._language.generate(inputs_embeds=embeds, attention_mask=mask, **settings)
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _generation(self, given: Mapping[str, Any], length: int) -> dict[str, Any]:
        """Options for transformers' `generate` after `length` prompt positions.

        Raises:
            HostError: more positions than the language model has.
        """
        options = {"max_new_tokens": NEW_TOKENS, **self.defaults, **given}
        limit = getattr(self._language.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and not self._is_encoder_decoder:
            asked = options["max_new_tokens"] if "max_new_tokens" in given else 1
            if length + asked > limit:
                raise HostError(
                    f"{length} prompt tokens and {asked} new ones are more than the {limit} positions of {self.name}: "
                    "give fewer streams or video frames, a shorter prompt, or a smaller max_new_tokens"
                )
            options["max_new_tokens"] = min(options["max_new_tokens"], limit - length)
        unused = [] if options.get("do_sample") else ["top_p", "top_k", "temperature"]
        unused += [] if options.get("num_beams", 1) > 1 else ["length_penalty", "early_stopping"]
        options = {key: value for key, value in options.items() if key not in unused or key in given}
        # Early conversions of LLaMA give a wrong end token in their configuration: the tokenizer's counts in any case.
        ends = getattr(getattr(self._language, "generation_config", None), "eos_token_id", None)
        ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        marks = {"pad_token_id": self._pad, "eos_token_id": sorted(ends) or None}
        return own_repetition_penalty({**marks, **options})

    def _stream(self, make_rows: Callable[[], list[Tensor]], options: Mapping[str, Any]) -> Iterator[str]:
        """Pieces of the answer as they come; generation starts with the first one taken and ends when no more are."""
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        check_generation_options(options)
        check_streaming(options)
        with self._answering():
            rows = make_rows()
        if len(rows) != 1:
            raise OptionError(f"one sample at a time can be streamed, found {len(rows)}: use generate()")
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        embeds, mask = self._batch(rows)
        settings = self._generation({**options, "num_beams": 1}, embeds.shape[1])
        own = settings.pop("stopping_criteria", None) or []

        def generate(left: Any) -> None:
            with self._answering():
                stop = StoppingCriteriaList([*own, left])
                self._language.generate(
                    inputs_embeds=embeds, attention_mask=mask, streamer=streamer, stopping_criteria=stop, **settings
                )

        end = partial(streamer.text_queue.put, streamer.stop_signal)
        return in_background(generate, (piece for piece in streamer if piece), end=end)

    def _loss(self, make_rows: Callable[[], list[Tensor]], targets: str | Sequence[str]) -> Tensor:
        """Mean cross entropy of the targets' tokens (end token included) behind the rows; nothing else counts."""
        answers = [targets] if isinstance(targets, str) else list(targets)
        with self._memory():
            rows = make_rows()
        if len(answers) != len(rows):
            raise OptionError(f"one target per sample is needed: {len(rows)} samples, {len(answers)} targets")
        device = rows[0].device
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] + [self.tokenizer.eos_token_id] for text in answers]
        labels = [torch.tensor(row, device=device) for row in ids]
        if not self._is_encoder_decoder:
            labels = [torch.cat([label.new_full((len(row),), -100), label]) for row, label in zip(rows, labels, strict=True)]
            rows = [torch.cat([row, self._embed(own)]) for row, own in zip(rows, ids, strict=True)]
        masks = [torch.ones(len(row), dtype=torch.long, device=device) for row in rows]
        with self._memory():
            out = self._language(
                inputs_embeds=pad_sequence(list(rows), batch_first=True),  # right: positions then count from 0 in every row
                attention_mask=pad_sequence(masks, batch_first=True),
                labels=pad_sequence(labels, batch_first=True, padding_value=-100),
            )
        return cast(Tensor, out.loss)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Evaluation without gradients, with advice when memory runs out."""
        with torch.inference_mode(), evaluating(self.model, *self.lenses.values()), self._memory():
            yield

    def _memory(self) -> AbstractContextManager[None]:
        advice = "give fewer samples per call, num_beams=1 or a smaller max_new_tokens, or load the host with load_in_8bit=True "
        return memory(f"{self.name} on {self.device}", f"{advice}or device_map='auto' (parts of it on the CPU)")


@contextmanager
def naming(stream: str) -> Iterator[None]:
    """Say which stream a misfit is about."""
    try:
        yield
    except HostError as error:
        raise HostError(f"stream {stream!r}: {error}") from error

"""The language model of a chat host: prompts to embeddings, embeddings to answers, piece by piece or whole, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, cast

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
from vitlens.errors import HostError, OptionError

NEW_TOKENS = 256
"""Of an answer, at most, where neither a call nor the host's defaults say it."""

MakeRows = Callable[[], list[Tensor]]
"""Makes the rows [n, H] that the language model is to go on from."""


class ChatLanguage:
    """A language model of transformers that generates from embeddings. It is neither moved nor changed.

    `module` gives it, looked at anew in every use; `parts` are the modules that answer with it (the host and its lenses), which
    are in evaluation mode while they do.

    Raises:
        HostError: a tokenizer with tokens that the model has no embeddings for, or that cannot fill short rows.
    """

    def __init__(self, module: Callable[[], Any], tokenizer: Any, *, name: str, parts: Callable[[], Sequence[nn.Module]]) -> None:
        self._module, self._parts = module, parts
        self.tokenizer, self.name = tokenizer, name
        check_vocabulary(tokenizer, self.embedding, name)
        self._pad = pad_id(tokenizer)

    @property
    def module(self) -> Any:
        """The module that generates from `inputs_embeds`."""
        return self._module()

    @property
    def embedding(self) -> Any:
        """Its input embeddings."""
        return self.module.get_input_embeddings()

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt (T5) and the answer is the decoder's alone."""
        return bool(self.module.config.is_encoder_decoder)

    # ---- prompts

    def ids(self, text: str) -> list[int]:
        """Token ids of a prompt: a decoder's begin with BOS (once) and do not end; an encoder's as its tokenizer makes them."""
        bos = self.tokenizer.bos_token_id
        written = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        ids = list(self.tokenizer(text, add_special_tokens=not written)["input_ids"])
        if self.is_encoder_decoder or written:
            return ids
        # Vicuna's tokenizer names another BOS than the one it writes: what it writes is taken.
        begins, ends = marks_written(self.tokenizer)
        ids = ids[:-1] if ends else ids
        return ids if begins or bos is None else [bos, *ids]

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Token ids -> input embeddings [n, H]."""
        return self.embedding(torch.tensor(list(ids), dtype=torch.long, device=device_of(self.embedding)))

    def batch(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows [n, H] of any length -> inputs_embeds [b, n, H] and attention_mask [b, n]; padded left for decoders."""
        side = "right" if self.is_encoder_decoder else "left"
        masks = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
        embeds = pad_sequence(list(rows), batch_first=True, padding_side=side)
        return embeds, pad_sequence(masks, batch_first=True, padding_side=side)

    # ---- answers

    def generate(self, make_rows: MakeRows, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
        """Answers to the rows [n, H] that `make_rows` makes; `options` are the call's, `defaults` the host's."""
        check_generation_options(options)
        with self._answering():
            embeds, mask = self.batch(make_rows())
            settings = self._settings(options, defaults, embeds.shape[1])
            ids = self.module.generate(inputs_embeds=embeds, attention_mask=mask, **settings)
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def stream(self, make_rows: MakeRows, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
        """Pieces of the answer as they come; generation starts with the first one taken and ends when no more are."""
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        check_generation_options(options)
        check_streaming(options)
        with self._answering():
            rows = make_rows()
        if len(rows) != 1:
            raise OptionError(f"one sample at a time can be streamed, found {len(rows)}: use generate()")
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        embeds, mask = self.batch(rows)
        settings = self._settings({**options, "num_beams": 1}, defaults, embeds.shape[1])
        own = settings.pop("stopping_criteria", None) or []

        def generate(left: Any) -> None:
            with self._answering():
                stop = StoppingCriteriaList([*own, left])
                self.module.generate(
                    inputs_embeds=embeds, attention_mask=mask, streamer=streamer, stopping_criteria=stop, **settings
                )

        end = partial(streamer.text_queue.put, streamer.stop_signal)
        return in_background(generate, (piece for piece in streamer if piece), end=end)

    def _settings(self, given: Mapping[str, Any], defaults: Mapping[str, Any], length: int) -> dict[str, Any]:
        """Options for transformers' `generate` after `length` prompt positions.

        Raises:
            HostError: more positions than the language model has.
        """
        options = {"max_new_tokens": NEW_TOKENS, **defaults, **given}
        limit = getattr(self.module.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and not self.is_encoder_decoder:
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
        ends = getattr(getattr(self.module, "generation_config", None), "eos_token_id", None)
        ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        marks = {"pad_token_id": self._pad, "eos_token_id": sorted(ends) or None}
        return own_repetition_penalty({**marks, **options})

    # ---- training

    def loss(self, make_rows: MakeRows, targets: str | Sequence[str]) -> Tensor:
        """Mean cross entropy of the targets' tokens (end token included) behind the rows; nothing else counts."""
        answers = [targets] if isinstance(targets, str) else list(targets)
        with self._memory():
            rows = make_rows()
        if len(answers) != len(rows):
            raise OptionError(f"one target per sample is needed: {len(rows)} samples, {len(answers)} targets")
        device = rows[0].device
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] + [self.tokenizer.eos_token_id] for text in answers]
        labels = [torch.tensor(row, device=device) for row in ids]
        if not self.is_encoder_decoder:
            labels = [torch.cat([label.new_full((len(row),), -100), label]) for row, label in zip(rows, labels, strict=True)]
            rows = [torch.cat([row, self.embed(own)]) for row, own in zip(rows, ids, strict=True)]
        masks = [torch.ones(len(row), dtype=torch.long, device=device) for row in rows]
        with self._memory():
            out = self.module(
                inputs_embeds=pad_sequence(list(rows), batch_first=True),  # right: positions then count from 0 in every row
                attention_mask=pad_sequence(masks, batch_first=True),
                labels=pad_sequence(labels, batch_first=True, padding_value=-100),
            )
        return cast(Tensor, out.loss)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Evaluation without gradients, with advice when memory runs out."""
        with torch.inference_mode(), evaluating(*self._parts()), self._memory():
            yield

    def _memory(self) -> AbstractContextManager[None]:
        advice = "give fewer samples per call, num_beams=1 or a smaller max_new_tokens, or load the host with load_in_8bit=True "
        return memory(f"{self.name} on {device_of(self.embedding)}", f"{advice}or device_map='auto' (parts of it on the CPU)")

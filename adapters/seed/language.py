"""The language model of SEED-LLaMA: prompts to ids, generation under the image grammar, ids back to texts and codes."""

from __future__ import annotations

import queue
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitlens.adapters.generation import device_of, pad_id
from vitlens.adapters.running import evaluating, in_background, memory
from vitlens.adapters.seed.conversation import Generation, Part, harmless
from vitlens.adapters.seed.grammar import TOKENS, ImageGrammar, ImageVocabulary
from vitlens.errors import HostError


class SeedLanguage:
    """A LLaMA with image tokens in its vocabulary. The model is neither moved nor changed.

    Raises:
        HostError: an embedding table smaller than the vocabulary, or a tokenizer that cannot fill short rows.
    """

    def __init__(self, model: Any, tokenizer: Any, vocabulary: ImageVocabulary) -> None:
        check_table(model, tokenizer)
        self.model, self.tokenizer, self.vocabulary = model, tokenizer, vocabulary
        self.pad = pad_id(tokenizer)  # SEED-LLaMA pads with the unknown token

    @property
    def device(self) -> torch.device:
        """Where the model takes its tokens; of an offloaded table, where it is brought to."""
        return device_of(self.model.get_input_embeddings())

    def ids(self, prompt: str) -> list[int]:
        """Ids of a prompt as SEED-LLaMA's own tokenizer made them: whitespace beside an image is nothing, a text begins a word.

        Later versions of that tokenizer class join texts over an image; the model has not learned those ids.
        """
        bos = self.tokenizer.bos_token or ""
        start = len(bos) if prompt.startswith(bos) else 0
        ids = [self.tokenizer.bos_token_id] if start else []
        behind_image = False
        for mark in [*TOKENS.finditer(prompt, start), None]:
            text = prompt[start : mark.start() if mark else len(prompt)]
            text = text.lstrip() if behind_image else text
            text = text.rstrip() if mark else text
            ids += self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
            if mark:
                ids.append(self.tokenizer.convert_tokens_to_ids(mark[0]))
                start, behind_image = mark.end(), True
        return ids

    def within(self, settings: Generation, longest: int, *, given: bool) -> Generation:
        """`settings` with as many new tokens as the model has positions for, unless a number was given."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is None or longest + settings.max_new_tokens <= limit:
            return settings
        fits = limit - longest
        needed = self.vocabulary.length + 1 if settings.force_image else 1
        if given or fits < needed:
            raise HostError(
                f"{longest} prompt tokens and {settings.max_new_tokens if given else needed} new ones are more than the {limit} "
                "positions of the model: start a new conversation, drop early turns of history, or lower max_new_tokens"
            )
        return replace(settings, max_new_tokens=fits)

    def generate(self, rows: Sequence[list[int]], settings: Generation, **options: Any) -> list[list[int]]:
        """New ids of each row, up to the end token; rows are padded on the left."""
        from transformers import LogitsProcessorList

        eos, length = self.tokenizer.eos_token_id, max(map(len, rows))
        ids = torch.tensor([[self.pad] * (length - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=self.device)
        grammar = ImageGrammar(
            self.vocabulary,
            prompt=length,
            max_new_tokens=settings.max_new_tokens,
            images=settings.max_images,
            forced=settings.force_image,
        )
        advice = "fewer messages at once, load_in_8bit=True, or device_map='auto' (parts on the CPU)"
        with (
            torch.inference_mode(),
            evaluating(self.model),
            seeded(settings.seed, self.device),
            memory("the language model", advice),
        ):
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings.config(eos=eos, pad=self.pad),
                logits_processor=LogitsProcessorList([grammar]),
                **options,
            )
        new = out[:, length:].tolist()
        return [row[: row.index(eos)] if eos in row else row for row in new]

    def parts(self, new: list[int], settings: Generation) -> list[Part]:
        """New ids as texts and codes [32], in order."""
        parts: list[Part] = []
        for part in self.vocabulary.split([self.vocabulary.begin, *new] if settings.force_image else new):
            said = part if isinstance(part, Tensor) else self._said(part)
            parts += [said] if isinstance(said, Tensor) or said else []
        return parts

    def _said(self, ids: list[int]) -> str:
        return harmless(self.tokenizer.decode(ids, skip_special_tokens=True), self.tokenizer.all_special_tokens)

    def pieces(self, row: list[int], settings: Generation) -> Generator[str | Tensor, None, list[int]]:
        """Pieces of text and whole images as they come; returns all new ids. Leaving it ends the generation."""
        from transformers import StoppingCriteriaList

        tokens = _Tokens()

        def generate(left: Any) -> list[int]:
            return self.generate([row], settings, streamer=tokens, stopping_criteria=StoppingCriteriaList([left]))[0]

        return (yield from in_background(generate, self._spoken(tokens, begun=settings.force_image), end=tokens.end))

    def _spoken(self, tokens: Iterable[int], *, begun: bool) -> Iterator[str | Tensor]:
        """Ids one by one -> pieces of text and whole images."""
        words, shown = self.vocabulary, ""
        run: list[int] = []
        image: list[int] | None = [] if begun else None
        for token in tokens:
            if image is not None and token != words.end:
                image.append(token - words.first)
            elif image is not None:
                yield torch.tensor(image)
                image, run, shown = None, [], ""
            elif token == words.begin:
                image = []
            elif token != self.tokenizer.eos_token_id:
                run.append(token)
                text = self.tokenizer.decode(run, skip_special_tokens=True)
                if len(text) > len(shown) and not text.endswith("\ufffd"):  # half a character
                    yield text[len(shown) :]
                    shown = text


class _Tokens:
    """What `generate` puts in as it goes, one id after the other; the prompt, which comes first, is passed over."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        self._prompt = True

    def put(self, value: Tensor) -> None:
        if self._prompt:
            self._prompt = False
        else:
            self._queue.put(value.flatten().tolist())

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[int]:
        while (ids := self._queue.get()) is not None:
            yield from ids


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw from `seed` for a while and leave the generators as they were; None: draw as always."""
    devices = [device] if device.type == "cuda" else []
    with nullcontext() if seed is None else torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def check_table(model: Any, tokenizer: Any) -> None:
    """Raises HostError when the model has no embeddings or no logits for some of the tokenizer's tokens."""
    needed = max(tokenizer.get_vocab().values()) + 1
    tables = {"embedding table": model.get_input_embeddings(), "output layer": model.get_output_embeddings()}
    for name, table in tables.items():
        rows = needed if table is None else table.weight.shape[0]
        if rows < needed:
            raise HostError(
                f"the tokenizer has {needed} tokens, the {name} of {type(model).__name__} {rows} rows: use the tokenizer that "
                "came with this model, or enlarge the table (add_image_tokens(tokenizer, model)) and train it"
            )

"""SEED-LLaMA with any sensor: a conversation of texts, pictures and sensed things, answered in text and pictures.

    adapter = SeedLlamaAdapter.from_pretrained(
        "AILab-CVC/seed-llama-8b-sft", tokenizer="AILab-CVC/seed-tokenizer-2", quantizer="AILab-CVC/seed-tokenizer-2",
        vit="eva_vit_g.pth", lenses={"point_cloud": lens}, pixels="unclip-h",
    )
    reply = adapter.chat([{"point_cloud": "chair.ply"}, "What is this?"])
    picture = adapter.edit({"point_cloud": "chair.ply"}, "add a Halloween atmosphere").pictures[0]

A sensor's lens tokens go through the SEED tokenizer's ViT and become 32 codes, which the language model reads as an image
(arXiv 2310.01218, 2311.16081). Nothing is trained.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitlens.adapters.generate.conditioning import Condition
from vitlens.adapters.host_files import HostFiles, find_host, load_host
from vitlens.adapters.lenses import Lenses
from vitlens.adapters.running import memory
from vitlens.adapters.seed.conversation import Generation, History, Part, Reply, Template, Turn, checked_text, template_named
from vitlens.adapters.seed.grammar import ImageVocabulary
from vitlens.adapters.seed.language import SeedLanguage
from vitlens.adapters.seed.pixels import CARD, unclip_decoder
from vitlens.adapters.seed.quantizer import SeedQuantizer
from vitlens.adapters.seed.senses import Senses, Thing
from vitlens.devices import chosen_device
from vitlens.errors import HostError, InputError, MissingDependencyError, OptionError
from vitlens.sources import name_of

Message = str | Thing | Sequence[str | Thing]
"""A text, a sensed thing, or several of both in the order they are said."""


class SeedLlamaAdapter:
    """A SEED-LLaMA, its tokenizer and quantizer, lenses in the quantizer's ViT, and (for pictures) an unCLIP pipeline.

    `template` says how the model was taught to read ("vicuna", "llama2"; None: told by the model's name). The other options are
    those of `Senses`. Nothing that is handed in is moved or changed.

    Raises:
        HostError: parts that do not belong together: a tokenizer without image tokens or with fewer than the quantizer has codes,
            an embedding table smaller than the tokenizer, a lens for another ViT, a pipeline for another space.
        OptionError: a template that is unknown or cannot be told.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        quantizer: SeedQuantizer,
        lenses: Lenses | None = None,
        template: str | Template | None = None,
        pixels: Any = None,
        **sensing: Any,
    ) -> None:
        self.template: Template = template_named(template, str(getattr(model.config, "_name_or_path", "") or ""))
        self.vocabulary = ImageVocabulary.from_tokenizer(tokenizer, codes=quantizer.codes, length=quantizer.queries)
        self.language = SeedLanguage(model, tokenizer, self.vocabulary)
        self.senses = Senses(quantizer, lenses, **sensing)
        self.pixels = None if pixels is None else unclip_decoder(pixels, quantizer.space)
        self.tokenizer, self.quantizer = tokenizer, quantizer

    @classmethod
    def from_pretrained(
        cls,
        llm: str,
        *,
        quantizer: SeedQuantizer | str,
        tokenizer: str | None = None,
        vit: str | None = None,
        lenses: Lenses | None = None,
        template: str | None = None,
        pixels: Any = None,
        dtype: torch.dtype | None = None,
        load_in_8bit: bool = False,
        device_map: Any = None,
        pixels_offload: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> SeedLlamaAdapter:
        """Load all parts by Hub name or folder, the small ones first.

        `tokenizer` is where the tokenizer with the image tokens is (None: beside the model). `quantizer` and `vit` are as in
        `SeedQuantizer.from_pretrained`, `pixels` a `Decoder`, a pipeline, its name, or "unclip-h" (the decoder of that card).
        `load_in_8bit` needs bitsandbytes; `device_map="auto"` spreads the model over devices and CPU; `pixels_offload` keeps the
        pipeline on the CPU but for the part that computes.
        `options` are the constructor's.

        Raises:
            ModelError, CheckpointError, MissingDependencyError: files or packages that are missing, or not what they should be.
            HostError, OptionError: as the constructor; not enough memory.
        """
        chosen = template_named(template, llm)
        files = find_host(llm, "llama", revision=revision)
        words = _tokenizer(files, tokenizer)
        device = chosen_device()
        if not isinstance(quantizer, SeedQuantizer):
            half = torch.float16 if device.type == "cuda" else torch.float32
            with memory("the SEED tokenizer", "keep it on the CPU (give a SeedQuantizer that is there)"):
                quantizer = SeedQuantizer.from_pretrained(quantizer, vit=vit, dtype=half).to(device)
        ImageVocabulary.from_tokenizer(words, codes=quantizer.codes, length=quantizer.queries)
        streams = Senses(quantizer, lenses, **options).lenses  # a misfit is told before the large model is read
        if isinstance(pixels, str):
            pixels = unclip_decoder(pixels, quantizer.space, offload=pixels_offload)
        from transformers import AutoModelForCausalLM

        model = load_host(files, AutoModelForCausalLM, dtype=dtype, device_map=device_map, load_in_8bit=load_in_8bit)
        return cls(
            model=model,
            tokenizer=words,
            quantizer=quantizer,
            lenses=streams,
            template=chosen,
            pixels=pixels,
            **options,
        )

    @property
    def streams(self) -> list[str]:
        """Names of what a message may hold beside text."""
        return self.senses.streams

    # ---- what a user asks

    def chat(self, message: Message, *, history: History = (), **options: Any) -> Reply:
        """Answer one message; `history` is an earlier reply's, `options` are those of `Generation`.

        Raises:
            InputError, ModalityError: a part that cannot be read, or of no known stream.
            OptionError: an option that there is not or cannot be kept, such as a forced image without room for it.
            HostError: a conversation longer than the model's positions; not enough memory.
        """
        return self.chat_batch([message], histories=[history], **options)[0]

    def chat_batch(
        self, messages: Sequence[Message], *, histories: Sequence[History] | None = None, **options: Any
    ) -> list[Reply]:
        """Answer several messages at once, each with its own history; errors as `chat`."""
        settings = self._settings(options)
        past = [()] * len(messages) if histories is None else list(histories)
        if len(past) != len(messages):
            raise OptionError(f"one history per message is needed: {len(messages)} messages, {len(past)} histories")
        if not messages:
            return []
        turns = [(*before, self._turn(message)) for before, message in zip(past, messages, strict=True)]
        prompts = [self._prompt(turn, settings) for turn in turns]
        rows = [self.language.ids(prompt) for prompt in prompts]
        settings = self.language.within(settings, max(map(len, rows)), given="max_new_tokens" in options)
        new = self.language.generate(rows, settings)
        return [self._reply(t, p, ids, settings) for t, p, ids in zip(turns, prompts, new, strict=True)]

    def stream(self, message: Message, *, history: History = (), **options: Any) -> Iterator[str | Tensor | Reply]:
        """The answer as it comes: pieces of text, the codes [32] of each image once it is whole, and at last the `Reply`.

        Everything is checked before the first piece. Errors as `chat`; several beams cannot be streamed.
        """
        settings = self._settings(options)
        if settings.num_beams != 1:
            raise OptionError(f"num_beams={settings.num_beams}: a stream has one candidate; leave it out, or use chat()")
        turns = (*history, self._turn(message))
        prompt = self._prompt(turns, settings)
        row = self.language.ids(prompt)
        settings = self.language.within(settings, len(row), given="max_new_tokens" in options)
        return self._pieces(turns, prompt, row, settings)

    def describe(self, thing: Thing, question: str = "What is this?", **options: Any) -> Reply:
        """Answer a question about a sensed thing, in text alone."""
        return self.chat([thing, question], **{"max_images": 0, **options})

    def edit(self, source: Thing, instruction: str, **options: Any) -> Reply:
        """A picture of what was sensed, changed as the instruction says ("add a Halloween atmosphere")."""
        return self.chat([source, instruction], **self._one_image(options))

    def combine(self, things: Sequence[Thing], instruction: str = "Show both of them in one picture.", **options: Any) -> Reply:
        """One picture of several sensed things.

        Raises:
            OptionError: fewer than two things; else as `chat`.
        """
        if len(things) < 2:
            raise OptionError(f"combine: two things or more are needed, found {len(things)}")
        return self.chat([*things, instruction], **self._one_image(options))

    def draw(self, codes: Tensor, *, seed: int = 0) -> list[Any]:
        """Pictures of codes [b, 32].

        Raises:
            HostError: no unCLIP pipeline.
        """
        if self.pixels is None:
            raise HostError(f"no unCLIP pipeline to draw with: pass pixels={CARD!r}")
        return self._drawn(self.quantizer.decode(codes), seed)

    def _drawn(self, embeddings: Tensor, seed: int) -> list[Any]:
        """A picture of each embedding [b, E], which depends on nothing but it and the seed."""
        return [] if self.pixels is None else [self.pixels.generate(Condition(embedding=row), seed=seed) for row in embeddings]

    def prompt(self, message: Message, *, history: History = (), force_image: bool = False) -> str:
        """The text that `chat` would have the model read."""
        return self._prompt((*history, self._turn(message)), Generation(force_image=force_image))

    # ---- before the language model

    def _settings(self, options: Mapping[str, Any]) -> Generation:
        settings = Generation.of(options)
        settings.check_room(self.vocabulary.length)
        return settings

    def _one_image(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"force_image": True, "max_images": 1, "max_new_tokens": self.vocabulary.length + 1, **options}

    def _turn(self, message: Message) -> Turn:
        said: Sequence[Any] = message if isinstance(message, list | tuple) else [message]
        parts: list[Part] = []
        for part in said:
            if isinstance(part, str):
                parts.append(checked_text(part, self.tokenizer.all_special_tokens))
            else:
                parts += self.senses.codes(part)
        if all(isinstance(part, str) and not part.strip() for part in parts):
            raise InputError(name_of(message), "an empty message", "text, sensed things, or both")
        return Turn(tuple(parts))

    def _prompt(self, turns: History, settings: Generation) -> str:
        return self.template.prompt(turns, self.vocabulary, bos=self.tokenizer.bos_token or "", force_image=settings.force_image)

    # ---- behind it

    def _reply(self, turns: History, prompt: str, new: list[int], settings: Generation) -> Reply:
        parts = self.language.parts(new, settings)
        codes = [part for part in parts if isinstance(part, Tensor)]
        embeddings = self.quantizer.decode(torch.stack(codes)).float().cpu() if codes else torch.empty(0)
        pictures = self._drawn(embeddings, settings.seed or 0) if settings.draw and codes else []
        history = (*turns[:-1], replace(turns[-1], reply=tuple(parts)))
        rows = tuple(embeddings)
        for row in rows:
            row.space = self.quantizer.space
        return Reply(tuple(parts), history, prompt, rows, tuple(pictures))

    def _pieces(self, turns: History, prompt: str, row: list[int], settings: Generation) -> Iterator[str | Tensor | Reply]:
        new = yield from self.language.pieces(row, settings)
        yield self._reply(turns, prompt, new, settings)


def _tokenizer(model: HostFiles, name: str | None) -> Any:
    """The tokenizer of a repository or folder; one in SentencePiece's form as LLaMA's own class of 2023 read it.

    Today's AutoTokenizer reads that form too, but forgets that a text begins a word.

    Raises:
        ModelError: no tokenizer there.
        MissingDependencyError: one in SentencePiece's form, and sentencepiece is not installed.
    """
    from transformers import AutoTokenizer, LlamaTokenizer
    from transformers.utils import cached_file

    files = model if name is None else HostFiles.at(name, "llama")
    missing_is_none = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = [cached_file(files.name, file, **files.where, **missing_is_none) for file in ("tokenizer.json", "tokenizer.model")]
    if found[0] is not None or found[1] is None:
        return files.load(AutoTokenizer)
    if importlib.util.find_spec("sentencepiece") is None:
        raise MissingDependencyError(
            f"the tokenizer {files.name} is in SentencePiece's form: pip install sentencepiece protobuf to read it"
        )
    return files.load(LlamaTokenizer, legacy=True)

"""Any combination of inputs -> any list of outputs: texts, pictures, sounds, videos, meshes, through one of three bridges.

    imagine = AnyToAny(vitlens.load("vitlens-g-openshape"), decoders=["kandinsky-2.2"])
    picture, = imagine.generate({"point_cloud": "chair.ply"}, ["chair.png"])

By embedding, where the decoder listens in the model's own space, or a fitted bridge leads there. By text: what an MLLM says of
the inputs, or the nearest texts of a bank, through any text pipeline. By picture, made first, for decoders that start from one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vitlens.adapters.generate.bridges import LinearBridge
from vitlens.adapters.generate.clip_reference import ClipReference
from vitlens.adapters.generate.conditioning import Condition, joined
from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_card
from vitlens.adapters.generate.decoders import Decoder, load_decoder
from vitlens.adapters.generate.mixture import Describer, Mixture, Weights
from vitlens.adapters.generate.outputs import Generated
from vitlens.adapters.generate.planning import Plan, Planner, Request, named
from vitlens.adapters.generate.retrieval import EmbeddingIndex, TextBank
from vitlens.errors import OptionError, SpaceError
from vitlens.model import ViTLens

CANDIDATE = 1 << 20
"""How far apart the seeds of a picture's candidates are: further than an output's from the next output's."""


@dataclass(frozen=True)
class _Job:
    """What all outputs of a call share."""

    mixture: Mixture
    sentences: list[tuple[str, float]]
    captions: tuple[str, ...]
    progress: bool | None


class AnyToAny:
    """Generates from what `model` can sense.

    `decoders` are names of cards (loaded when first needed, with `load_options` of `load_decoder`) or `Decoder` objects, the
    preferred ones first. `describer` says what an input is (an MLLM: {modality: items} -> a sentence per item), `bank` is the
    texts that stand in for it. The captions of the nearest items of `index` are put before every prompt. `bridges` lead from the
    model's space to those of decoders.

    Raises:
        OptionError: a decoder that is not known, or named twice.
        SpaceError: a bank or an index of another space than the model's.
    """

    def __init__(
        self,
        model: ViTLens,
        *,
        decoders: Sequence[str | Decoder] = (),
        describer: Describer | None = None,
        bank: TextBank | None = None,
        index: EmbeddingIndex | None = None,
        bridges: Sequence[LinearBridge] = (),
        load_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.describer, self.bank, self.index = model, describer, bank, index
        self.bridges = list(bridges)
        self.load_options = dict(load_options or {})
        self.cards: dict[str, DecoderCard] = {}
        self._loaded: dict[str, Decoder] = {}
        for given in [decoders] if isinstance(decoders, str) else decoders:
            card = decoder_card(given) if isinstance(given, str) else given.card
            if card.name in self.cards:
                raise OptionError(f"decoder {card.name} is given twice; give one of them a card of another name")
            self.cards[card.name] = card
            if isinstance(given, Decoder):
                self._loaded[card.name] = given
        for name, texts in (("bank", bank), ("index", index)):
            if texts is not None and texts.space != model.space:
                raise SpaceError(f"the {name} is in space {named(texts.space)}, the model in {named(model.space)}")

    def decoder(self, name: str) -> Decoder:
        """The decoder of that name, loaded if it was not."""
        if name not in self._loaded:
            self._loaded[name] = load_decoder(self.cards[name], **self.load_options)
        made = self._loaded[name]
        if made.image_encoder is None and made.card.space == self.model.space and self.model.supports("image"):
            made.image_encoder = ClipReference.from_model(self.model)
        return made

    def generate(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str | os.PathLike[str] | Request] | str | Request,
        *,
        weights: Weights | None = None,
        retrieve: int = 2,
        seed: int = 0,
        allow_other_space: bool = False,
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
        progress: bool | None = None,
    ) -> list[Generated]:
        """Make every output from all inputs together; everything is checked before the first is made.

        `inputs` is {modality: item, or list of items}, `outputs` a list of kinds, file names (written at once) or `Request`s.
        `weights` is {modality: a number for each of its items, or a list of numbers}; 1 each without. `retrieve` captions are
        taken from the index. The second output of a kind and decoder gets the next seed. `allow_other_space` lets a decoder
        have embeddings of another space of the same width: what it makes of them is arbitrary.

        Raises:
            InputError: an input that cannot be read.
            ModalityError: a modality the model does not have.
            OptionError: weights, outputs or options that cannot be used.
            SpaceError: an output whose decoder listens in another space, with no bridge to it.
            HostError: a pipeline that does not fit its card, or too little memory.
        """
        mixture = Mixture(self.model, inputs, weights, read_options)
        wanted = [outputs] if isinstance(outputs, str | os.PathLike | Request) else outputs
        planner = Planner(self.model.space, self.cards, self.bridges, self.describer is not None or self.bank is not None)
        plans = self._seeded([planner.plan(Request.of(given), mixture, allow_other_space) for given in wanted], seed)
        _check_paths(plans, mixture)
        every = [part for plan in plans for part in plan.all()]
        job = self._job(every, mixture, retrieve, progress)  # a file that cannot be read is said before weights are loaded
        for plan in every:
            self._check(plan)
        return [self._made(plan, job) for plan in plans]

    def _job(self, plans: Sequence[Plan], mixture: Mixture, retrieve: int, progress: bool | None) -> _Job:
        """Read, embed and describe the inputs, as far as the plans need it."""
        bridges = {plan.bridge for plan in plans}
        captions = () if self.index is None else tuple(m.caption for m in self.index.nearest(mixture.pooled, retrieve)[0])
        if "embedding" in bridges or any(plan.request.candidates > 1 for plan in plans):
            _ = mixture.pooled
        if "picture" in bridges and mixture.only_picture:
            _ = mixture.picture
        sentences = mixture.sentences(self.describer, self.bank) if "text" in bridges else []
        return _Job(mixture, sentences, captions, progress)

    @staticmethod
    def _seeded(plans: list[Plan], seed: int) -> list[Plan]:
        counts: dict[Any, int] = {}
        made = []
        for plan in plans:
            key = (plan.request.kind, plan.card.name if plan.card else None)
            made.append(plan.seeded(seed + counts.get(key, 0)))
            counts[key] = counts.get(key, 0) + 1
        return made

    def _check(self, plan: Plan) -> None:
        if plan.card is None:
            return
        if plan.request.candidates > 1 and not self.model.supports("image"):
            raise OptionError(
                f"candidates: {self.model.spec.name} has no image encoder to look at pictures; leave candidates at 1"
            )
        decoder = self.decoder(plan.card.name)
        decoder.options(steps=plan.request.steps, guidance=plan.request.guidance, **plan.request.options)
        if plan.bridge != "picture":  # where the words go to what draws the picture
            decoder.check_words(plan.request.prompt, plan.request.negative_prompt)
        if plan.bridge == "embedding":
            decoder.norm_and_source(plan.fitted_length)
        if decoder.embedding_input is not None and decoder.embedding_input.needs_blank:
            _ = decoder.reference  # where the embedding of an empty picture comes from

    def _made(self, plan: Plan, job: _Job) -> Generated:
        request = plan.request
        if plan.card is None:
            made = Generated("text", self._words(job), "text")
        else:
            decoder = self.decoder(plan.card.name)
            condition = self._condition(plan, decoder, job)
            options = decoder.options(steps=request.steps, guidance=request.guidance, **request.options)
            value, seed = self._nearest(decoder, condition, plan, job, options)
            made = Generated(
                kind=request.kind,
                value=value,
                bridge=plan.bridge,
                decoder=decoder.name,
                prompt=condition.sentence or None,
                embedding=condition.embedding,
                retrieved=job.captions if condition.before else (),
                seed=seed,
                options=options,
            )
        if request.path is not None:
            made.save(request.path)
        return made

    def _nearest(
        self, decoder: Decoder, condition: Condition, plan: Plan, job: _Job, options: Mapping[str, Any]
    ) -> tuple[Any, int]:
        """What the decoder makes and the seed of it: of the request's candidates the one nearest to the inputs."""
        seeds = (plan.seed + number * CANDIDATE for number in range(plan.request.candidates))
        drawn = ((decoder.generate(condition, seed=seed, progress=job.progress, **options), seed) for seed in seeds)
        if plan.request.candidates == 1:
            return next(drawn)
        wanted = job.mixture.pooled
        return max(drawn, key=lambda one: float(self.model.encode({"image": [one[0]]})["image"][0] @ wanted))

    def _condition(self, plan: Plan, decoder: Decoder, job: _Job) -> Condition:
        if plan.bridge == "picture":
            return Condition(picture=job.mixture.picture if plan.picture is None else self._made(plan.picture, job).value)
        before = joined(*job.captions) if decoder.reads_text else ""
        said = Condition(before=before, after=plan.request.prompt, negative=plan.request.negative_prompt)
        if plan.bridge == "embedding":
            return replace(said, embedding=self._embedding(plan, decoder, job.mixture))
        prompts, shares = zip(*job.sentences, strict=True)
        return replace(said, prompts=prompts, weights=shares)

    def _embedding(self, plan: Plan, decoder: Decoder, mixture: Mixture) -> Tensor:
        vector = mixture.pooled if plan.map is None else plan.map(mixture.pooled)
        length, _ = decoder.norm_and_source(plan.fitted_length)
        return F.normalize(vector, dim=-1) * length

    def _words(self, job: _Job) -> str:
        """With a bank, what lies nearest to the whole mixture; else what was said of each input, the heaviest first."""
        if self.describer is None and self.bank is not None and job.mixture.needs_describing:
            return self.bank.describe(job.mixture.pooled)[0]
        return joined(*(sentence for sentence, _ in sorted(job.sentences, key=lambda pair: -pair[1])))


def _check_paths(plans: Sequence[Plan], mixture: Mixture) -> None:
    """No output over an input, nor over another output."""
    taken = {path.resolve() for path in mixture.paths}
    for path in (Path(plan.request.path) for plan in plans if plan.request.path is not None):
        if path.resolve() in taken:
            raise OptionError(f"output {path}: this is one of the inputs, or another output; choose another name")
        taken.add(path.resolve())

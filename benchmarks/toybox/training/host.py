"""What the Toybox's multimodal language models learn to say: questions about pictures, their answers, and the words of both.

There are two, of transformers' own classes: an InstructBLIP, whose Q-Former reads the ViT's tokens, and a LLaVA, whose LLaMA
reads the patch tokens themselves. How they are made is told in `host_networks.py`, how they learn in `host_task.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vitlens.benchmarks.toybox.training.picture_task import pacing
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import SIZES, ToyObject
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.checks import one_of
from vitlens.errors import MissingDependencyError
from vitlens.train.options import RunOptions

HostKind = Literal["instructblip", "llava"]
"""In transformers' configuration."""
HOST_FOLDERS: dict[HostKind, str] = {"instructblip": "host", "llava": "llava"}
"""Kind of host -> the folder it is kept in."""
HOST_NAMES: dict[HostKind, str] = {"instructblip": "InstructBLIP", "llava": "LLaVA"}
"""Kind of host -> its name for people."""
QUESTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "everything": (
        ("describe this object", "what is this?", "describe this object in details", "what do you see?"),
        "a {size} {colour} {shape} made of {material}",
    ),
    "shape": (("what shape is it?", "which object is this?", "what kind of thing is it?"), "it is a {shape}"),
    "material": (("what is it made of?", "which material is it?", "what does it consist of?"), "it is made of {material}"),
    "colour": (("what colour is it?", "which colour does it have?"), "it is {colour}"),
    "size": (("how large is it?", "is it small or large?"), "it is {size}"),
}
"""Topic -> ways to ask, and the answer."""
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
IMAGE = "<image>"
"""Where a LLaVA's prompt has the picture."""
_SPEAKERS = "user: assistant:"
"""The words that LLaVA-1.5's prompts have around a question, in lower case as all words."""


def answering(epochs: int = 8) -> RunOptions:
    """How fast a tiny host learns to answer."""
    return pacing(epochs, 64, lr=2e-3, weight_decay=0.05, precision="fp32")


@dataclass(frozen=True)
class HostRecipe:
    """Numbers of a tiny host and of its training."""

    kind: HostKind = "instructblip"
    pace: RunOptions = field(default_factory=answering)
    width: int = 128
    language_layers: int = 3
    queries: int = 8
    """Of an InstructBLIP's Q-Former, as what follows here but the seed."""
    qformer_layers: int = 2
    alone: float = 0.0
    """Share of the pictures of which the Q-Former is shown the class token alone."""
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("toybox: kind of host", self.kind, get_args(HostKind))


def answer(thing: ToyObject, topic: str) -> str:
    """What is right to say of an object when asked about a topic."""
    words = {"shape": thing.shape, "material": MATERIALS[thing.material].name, "colour": thing.colour, "size": thing.size_word}
    return QUESTIONS[topic][1].format(**words)


def tokenizers(kind: HostKind) -> tuple[Any, Any]:
    """The tokenizers of language model and Q-Former (none for a LLaVA), made from the words of questions and answers."""
    PreTrainedTokenizerFast = transformers_package().PreTrainedTokenizerFast
    marks, speakers = ([IMAGE], [_SPEAKERS]) if kind == "llava" else ([], [])
    words = sorted(spoken_words(*speakers))
    language = word_tokenizer([*SPECIAL.values(), *marks, *words], unknown="<unk>", template="<s> $A")
    speaker = PreTrainedTokenizerFast(
        tokenizer_object=language,
        **SPECIAL,
        additional_special_tokens=marks,
        padding_side="left",
        truncation_side="left",
        model_input_names=_INPUTS,
    )
    return speaker, None if kind == "llava" else _qformer_tokenizer(words)


def _qformer_tokenizer(words: Sequence[str]) -> Any:
    """In BERT's way."""
    reading = word_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words], unknown="[UNK]", template="[CLS] $A [SEP]")
    return transformers_package().PreTrainedTokenizerFast(
        tokenizer_object=reading,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        truncation_side="left",
        model_input_names=_INPUTS,
    )


def spoken_words(*more: str) -> set[str]:
    """The words of questions and answers, and of further lines."""
    values: Mapping[str, Sequence[str]] = {
        "shape": list(SHAPES),
        "material": [material.name for material in MATERIALS.values()],
        "colour": [colour for material in MATERIALS.values() for colour in material.colours],
        "size": list(SIZES),
    }
    lines = [line for asked, said in QUESTIONS.values() for line in (*asked, said.replace("{", "").replace("}", ""))]
    lines += [*more, *(word for words in values.values() for word in words)]
    pre = _pre_tokenizer()
    return {word for line in lines for word, _ in pre.pre_tokenize_str(line)}


def _pre_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import Whitespace

    return Whitespace()


def word_tokenizer(words: Sequence[str], *, unknown: str, template: str) -> Any:
    """A tokenizer of whole words, ids in the order given; `template` puts its special tokens around a text."""
    from tokenizers import Tokenizer, models, normalizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = _pre_tokenizer()
    around = [word for word in template.split() if word != "$A"]
    special = [(word, words.index(word)) for word in around]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


_INPUTS = ["input_ids", "attention_mask"]


def transformers_package() -> Any:
    """transformers; raises MissingDependencyError without it."""
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("the Toybox's language models need transformers: pip install 'vitlens[mllm]'") from error
    return transformers

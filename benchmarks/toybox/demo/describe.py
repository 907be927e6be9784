"""The proof that plugging in works: the Toybox's hosts, which only ever saw pictures, asked about what other sensors measured.

    host = talking_host(vitlens.load("vitlens-toybox"))     # an InstructBLIP; talking_llava: a LLaVA
    host.generate("what is it made of?", {"audio": "blow.wav"})

Nothing of a host was trained for it: each lens stands in the place of the host's patch convolution.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitlens import checks
from vitlens.adapters.chat.host import ChatHost, Plugging
from vitlens.adapters.chat.instructblip import InstructBlipAdapter
from vitlens.adapters.chat.llava import LlavaAdapter
from vitlens.adapters.chat.qformer import Look
from vitlens.adapters.lenses import Lenses
from vitlens.benchmarks.toybox.sensors.drawn import ASKED, LABELS, Drawn
from vitlens.benchmarks.toybox.training.clip import PICTURE
from vitlens.benchmarks.toybox.training.host import HOST_FOLDERS, QUESTIONS, HostKind
from vitlens.benchmarks.toybox.training.host_networks import load_host
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.display.progress import track
from vitlens.model import ViTLens

WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED: dict[HostKind, Path] = {kind: WEIGHTS / name for kind, name in HOST_FOLDERS.items()}
Reads = Literal["class_token", "all", "patches", "codes", "story"]
"""Which of the ViT's tokens a host reads of the sensors with a lens: the Q-Former the class token or all, a LLaVA the patches; a
SEED-LLaMA reads codes made of all of them, of one thing or of the three of a story.
"""
ANSWERING: dict[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": 16}
"""The answers are a few words that may repeat: no beams, no penalty."""
PAIRS = (
    ("depth", "tactile"),
    ("point_cloud", "audio"),
    ("image", "audio"),
    ("thermal", "audio"),
    ("imu", "tactile"),
    ("eeg", "tactile"),
)
"""Two senses of one object in one prompt; the host never saw two things at once."""


@dataclass(frozen=True)
class Described:
    """Share of the answers that name an object's shape or material right, and what a guess gets."""

    sensors: str
    """One sensor, or several with "+" between them."""
    look: str
    """Which tokens the host read, one of `Reads`; of pictures the Q-Former always all."""
    label: str
    split: str
    items: int
    right: float
    chance: float
    neighbours: int = 0
    """How many of the nearest known things stood before the question."""


def talking_host(
    model: ViTLens,
    folder: str | os.PathLike[str] = SHIPPED["instructblip"],
    *,
    look: Look = "all",
    lenses: Lenses | None = None,
    **plugging: Any,
) -> InstructBlipAdapter:
    """The tiny InstructBLIP with all lenses of the Toybox model plugged in; `look` is what it sees of their streams.

    `lenses` come beside them, or in the place of those of their names; `plugging` are the adapter's other options.
    """
    host, speaker, reader = load_host(folder, model)
    every = every_lens(model, lenses)
    return InstructBlipAdapter(
        host,
        tokenizer=speaker,
        qformer_tokenizer=reader,
        image_processor=image_processor(model),
        look=dict.fromkeys(every, look),
        lenses=every,
        **plugging,
    )


def talking_llava(
    model: ViTLens, folder: str | os.PathLike[str] = SHIPPED["llava"], *, lenses: Lenses | None = None, **plugging: Any
) -> LlavaAdapter:
    """The tiny LLaVA with all lenses of the Toybox model plugged in; the rest as `talking_host`."""
    host, speaker, _ = load_host(folder, model)
    processor = image_processor(model)
    return LlavaAdapter(host, tokenizer=speaker, image_processor=processor, lenses=every_lens(model, lenses), **plugging)


def every_lens(model: ViTLens, more: Lenses | None = None) -> Lenses:
    """All sensors of the Toybox model, and `more` beside them or in their place."""
    return {**{name: model for name in LABELS if name != "image" and model.supports(name)}, **(more or {})}


def shipped_hosts() -> dict[HostKind, Path]:
    """The folders of the hosts whose weights are here."""
    return {kind: folder for kind, folder in SHIPPED.items() if (folder / "model.safetensors").is_file()}


def shipped_host(lenses: Lenses | None = None, **plugging: Any) -> InstructBlipAdapter:
    """The shipped host with the shipped lenses, and others beside them: `vitlens chat --model vitlens-toybox`."""
    from vitlens.model import load

    checks.known("vitlens-toybox: unknown option", plugging, [name for name in Plugging.__annotations__ if name != "lenses"])
    host = talking_host(load("vitlens-toybox"), lenses=lenses, **plugging)
    host.defaults = {**host.defaults, **ANSWERING}
    return host


def image_processor(model: ViTLens) -> Any:
    """The image preprocessing of the Toybox's CLIP as transformers' image processor."""
    from transformers import CLIPImageProcessor

    options = model.modality("image").options()
    return CLIPImageProcessor(
        size={"height": PICTURE, "width": PICTURE},
        do_center_crop=False,
        image_mean=list(options["mean"]),
        image_std=list(options["std"]),
    )


def ask(host: ChatHost, question: str, inputs: Mapping[str, Sequence[Any]], *, batch: int = 70) -> list[str]:
    """The host's answer for each row of the streams' items."""
    count = len(next(iter(inputs.values())))
    answers: list[str] = []
    for start in track(range(0, count, batch), f"asking about {' + '.join(inputs)}"):
        part = {name: list(items[start : start + batch]) for name, items in inputs.items()}
        answers += host.generate([question] * len(next(iter(part.values()))), part, **ANSWERING)
    return answers


def describe_split(host: ChatHost, drawn: Drawn, split: str, *, look: Reads) -> list[Described]:
    """Ask about every sensor's measurements of a split, one sensor at a time and in `PAIRS`; `look` is the host's.

    Of pictures a Q-Former reads all tokens in any case: they are asked about once.
    """
    names = list(host.lenses) if look == "class_token" else ["image", *host.lenses]
    found = []
    for senses in [(name,) for name in names] + [pair for pair in PAIRS if set(pair) <= set(names)]:
        labels = dict.fromkeys(label for name in senses for label in ASKED[name])
        answers = ask(host, QUESTIONS["everything"][0][0], {name: drawn.column(name) for name in senses})
        found += [naming_share(answers, drawn.things, label, "+".join(senses), look, split) for label in labels]
    return found


def naming_share(
    texts: Sequence[str], things: Sequence[ToyObject], label: str, sensors: str, look: Reads, split: str
) -> Described:
    """How many of the texts name their thing's shape (or material) right."""
    right = [naming_right(text, thing, label) for text, thing in zip(texts, things, strict=True)]
    chance = 1 / len(SHAPES if label == "shape" else MATERIALS)
    return Described(sensors, look, label, split, len(right), float(np.mean(right)), chance)


def naming_right(text: str, thing: ToyObject, label: str) -> bool:
    """Whether a text names the object's shape (or material) and no other one."""
    names = SHAPES if label == "shape" else [material.name for material in MATERIALS.values()]
    wanted = thing.shape if label == "shape" else MATERIALS[thing.material].name
    words = " ".join(re.findall(r"[a-z]+", text.lower()))
    return [name for name in names if re.search(rf"\b{re.escape(name)}\b", words)] == [wanted]

"""Words for Toybox objects: captions that name shape, material, colour and size, and the prompts of zero-shot classification."""

from __future__ import annotations

from typing import Protocol

from vitlens.benchmarks.toybox.world.materials import MATERIALS

TEMPLATES = (
    "a {size} {colour} {adjective} {shape}",
    "a photo of a {colour} {shape} made of {material}",
    "a {adjective} {shape}, {size} and {colour}",
    "this is a {size} {shape} of {colour} {material}",
    "a {colour} {adjective} {shape} standing on the floor",
    "the {shape} is {size} and made of {colour} {material}",
    "a picture of a {size} {adjective} {shape}",
    "a {shape} made of {material}",
)
"""Sentences about a whole object; each names shape and material."""
SHAPE_PROMPTS = ("a {shape}", "a photo of a {shape}", "this is a {shape}", "a {shape} standing on the floor")
"""Sentences about a shape of any material: prompts of zero-shot classification, and short captions."""
MATERIAL_PROMPTS = (
    "something made of {material}",
    "a {adjective} thing",
    "this is made of {material}",
    "an object of {material}",
)
"""Sentences about a material of any shape."""


class Thing(Protocol):
    """What can be described: a Toybox object."""

    @property
    def shape(self) -> str: ...
    @property
    def material(self) -> str: ...
    @property
    def colour(self) -> str: ...
    @property
    def size_word(self) -> str: ...


def fill(template: str, **words: str) -> str:
    """A template with its words put in, and "a" turned into "an" before a vowel."""
    text = template.format(**words).split()
    for place, word in enumerate(text[:-1]):
        if word == "a" and text[place + 1][0] in "aeiou":
            text[place] = "an"
    return " ".join(text)


def describe(thing: Thing, template: str) -> str:
    """What `template`, any of this file's, says of an object."""
    material = MATERIALS[thing.material]
    return fill(
        template,
        size=thing.size_word,
        colour=thing.colour,
        material=material.name,
        adjective=material.adjective,
        shape=thing.shape,
    )


def captions(thing: Thing) -> list[str]:
    """All captions of an object, of the whole, of its shape alone and of its material alone."""
    return [describe(thing, template) for template in (*TEMPLATES, *SHAPE_PROMPTS, *MATERIAL_PROMPTS)]


def shape_prompts(shape: str) -> list[str]:
    """The prompts of a class of shapes."""
    return [fill(template, shape=shape) for template in SHAPE_PROMPTS]


def material_prompts(material: str) -> list[str]:
    """The prompts of a class of materials."""
    return [fill(template, material=material, adjective=MATERIALS[material].adjective) for template in MATERIAL_PROMPTS]

"""The model card of a trained Toybox model: how it was made, with which seed, and the tables that were measured on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitlens.benchmarks.toybox.demo.evaluate import Results
from vitlens.benchmarks.toybox.demo.generated import Generated
from vitlens.benchmarks.toybox.demo.tables import ablation_table, generator_tables, sensor_tables, time_table, words
from vitlens.benchmarks.toybox.training.host import HostRecipe
from vitlens.benchmarks.toybox.training.lenses import ABLATED, ABLATIONS
from vitlens.benchmarks.toybox.training.painter import PainterRecipe
from vitlens.benchmarks.toybox.training.recipes import GeneratorsRecipe, ToyboxRecipe, Trained
from vitlens.benchmarks.toybox.training.seed_networks import SeedRecipe
from vitlens.cards import PublishedScore
from vitlens.hub_card import metadata
from vitlens.train.options import RunOptions

SPLITS = {"test": "seen shapes", "unseen_pairs": "unseen pairs", "unseen_shapes": "never-seen shapes"}


def write_card(folder: Path, recipe: ToyboxRecipe, trained: Trained) -> None:
    """Write README.md, results.json and card.yaml (the zoo's card) beside the weights in `folder`."""
    import yaml

    (folder / "results.json").write_text(json.dumps(trained.results.to_dict(), indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card_text(recipe, trained), encoding="utf-8")
    text = yaml.safe_dump(zoo_card(recipe, trained.results), sort_keys=False, width=120)
    (folder / "card.yaml").write_text(text, encoding="utf-8")


def zoo_card(recipe: ToyboxRecipe, results: Results) -> dict[str, Any]:
    """What the zoo says of the model beside its config.json; of each accuracy the one with the most classes."""
    pictures = recipe.clip.objects + recipe.clip.clip_only
    data = f"{pictures:,} pictures and captions of the Toybox (seed {recipe.seed}), and what the sensors measure of "
    data = f"that of {recipe.start}, and what the sensors measure of " if recipe.start is not None else data
    speaking = f"Lenses trained with terms on their tokens: {words(', '.join(recipe.sensors))} (docs/tokens.md)."
    largest = {(a.sensor, a.label, a.split): a for a in sorted(results.accuracies, key=lambda a: a.classes)}
    return {
        "summary": "Small model of the Toybox, our procedural world: every sensor works offline, but it knows 33 toy shapes only",
        "source": "part of this package; made by `vitlens toybox train`",
        "training_data": f"{data}{_objects(recipe)} of them",
        "scores": [
            {
                "dataset": f"Toybox {SPLITS[split]}, {sensor}: {label} of {found.classes}",
                "metric": "top-1",
                "value": round(100 * found.top1, 1),
                "source": "measured here",
            }
            for (sensor, label, split), found in largest.items()
        ],
        "notes": [
            "Of the real world it knows nothing: it shows that the method works, and how.",
            *([speaking] if recipe.tokens else []),
        ],
    }


def generators_card(recipe: GeneratorsRecipe, found: Generated) -> str:
    """The card of hosts and painter in Markdown."""
    pictures = f"{recipe.objects + recipe.clip_only:,} pictures"
    parts = [
        "# The Toybox's hosts and painter",
        "What the Toybox's lenses are plugged into: a tiny InstructBLIP (`host/`), a tiny LLaVA (`llava/`), a tiny SEED-LLaMA "
        "(`seed/`) and a tiny Stable unCLIP (`painter/`), all around the ViT of `vitlens-toybox`, "
        "which is not repeated here. They know the Toybox and nothing of the real world. Licence: Apache-2.0.",
        "```python\nfrom vitlens.benchmarks.toybox.demo.describe import shipped_host\n\n"
        'shipped_host().generate("what is it made of?", {"audio": "blow.wav"})\n```',
        "## How they were made",
        f"`vitlens toybox hosts`, seed {recipe.seed}, on {pictures} drawn by code (those of the CLIP; no other sensor).\n\n"
        f"- The InstructBLIP: {_instructblip_stage(recipe.host('instructblip'))}\n"
        f"- The LLaVA: {_llava_stage(recipe.host('llava'))}\n"
        f"- The SEED-LLaMA: {_seed_stage(recipe.composer)}\n"
        f"- The painter: {_painter_stage(recipe.painter)}",
        "## Measured",
        *(f"### {table.title}\n\n{table.to_markdown()}" for table in generator_tables(found)),
    ]
    return "\n\n".join(parts) + "\n"


def _instructblip_stage(host: HostRecipe | None) -> str:
    if host is None:
        return "the shipped one."
    reading = f"a Q-Former of {host.qformer_layers} layers with {host.queries} queries"
    shown = f"Of {host.alone:.0%} of the pictures the Q-Former saw the class token alone." if host.alone else ""
    return f"{reading}, {_talking(host)} {shown}".rstrip()


def _llava_stage(host: HostRecipe | None) -> str:
    if host is None:
        return "the shipped one."
    return f"a projector of two layers on the patch tokens behind the last block but one, {_talking(host)}"


def _seed_stage(seed: SeedRecipe | None) -> str:
    if seed is None:
        return "the shipped one, if there is one."
    return (
        f"a SEED-2 tokenizer, a Q-Former of {seed.layers} layers with {seed.queries} queries and {seed.codes} codes, to the "
        f"image embedding ({_length(seed.quantizer)}); then a LLaMA of {seed.language_layers} layers, width {seed.width}, over "
        f"words and codes: descriptions, pictures of captions, edits, compositions ({_length(seed.language)}), with a further "
        "picture of every object after an edit."
    )


def _talking(host: HostRecipe) -> str:
    return (
        f"a LLaMA of {host.language_layers} layers, width {host.width}, a vocabulary of whole words; one question and answer "
        f"per picture, {_length(host.pace)}."
    )


def _painter_stage(painter: PainterRecipe | None) -> str:
    if painter is None:
        return "the shipped one."
    return (
        f"an autoencoder ({_length(painter.autoencoder)}), then a diffusion model on its 16 x 16 x 4 latents, "
        f"given a noised image embedding ({_length(painter.drawing)}, average of the weights)."
    )


def _token_stage(recipe: ToyboxRecipe) -> str:
    return "- Every lens with terms on its tokens (docs/tokens.md).\n" if recipe.tokens else ""


def _objects(recipe: ToyboxRecipe) -> str:
    return _span([recipe.lens_objects(sensor) for sensor in recipe.sensors])


def _span(counts: Sequence[int]) -> str:
    """From the smallest to the largest; one number where all are equal."""
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def _first_stages(recipe: ToyboxRecipe) -> str:
    clip = recipe.clip
    epochs = _span([recipe.lens_epochs(sensor) for sensor in recipe.sensors])
    lenses = (
        "- Then a ModEmbed and lens for each sensor in front of its frozen ViT (`benchmarks/toybox/training/lenses.py`), "
        f"{epochs} epochs on {_objects(recipe)} of the same objects, {recipe.batch_size} a batch, {recipe.precision}, against "
        "the CLIP's picture and text embeddings."
    )
    if recipe.start is not None:
        return (
            f"- The CLIP, and lenses that are not named here, of {recipe.start}, whose card tells how those were made.\n{lenses}"
        )
    return (
        f"- A CLIP (ViT of {clip.layers} blocks, width {clip.width}, patches of {clip.patch} on 64 x 64 pictures; a text tower "
        f"of {clip.text_layers} blocks, width {clip.text_width}; {clip.embed_dim} dimensions) on "
        f"{clip.objects + clip.clip_only:,} pictures with captions, {clip.epochs} epochs in batches of "
        f"{clip.batch}, AdamW, learning rate {clip.lr:g}.\n{lenses}"
    )


def _length(pace: RunOptions) -> str:
    return f"{pace.schedule.epochs} epochs in batches of {pace.batch_size}"


def card_text(recipe: ToyboxRecipe, trained: Trained) -> str:
    """The card in Markdown."""
    sensors = ", ".join(trained.model.modalities)
    size = sum(p.numel() for p in {id(p): p for p in trained.model.parameters()}.values()) / 1e6
    tables = sensor_tables(trained.results)
    if trained.ablations:
        tables.append(ablation_table(ABLATED, trained.ablations, ABLATIONS))
    tables.append(time_table(trained.seconds))
    parts = [
        "# vitlens-toybox",
        f"Modalities: {sensors}. {size:.1f} million parameters, float16. Licence: Apache-2.0.",
        '```python\nimport vitlens\n\nmodel = vitlens.load("vitlens-toybox")\n```',
        "It knows the Toybox, vitlens's procedural world of 33 shapes in 8 materials, and nothing of the real world: it is there "
        "to show the method without a download, to test with, and to compare training runs with.",
        "## How it was made",
        f"`vitlens toybox train`, seed {recipe.seed}, everything drawn by code (no data set).\n\n"
        f"{_first_stages(recipe)}\n"
        f"{_token_stage(recipe)}"
        "- Five shapes (stool, goblet, snowman, dumbbell, tree) were shown to the CLIP and to no lens; of every other shape one "
        "material was kept out of all training."
        + (
            f"\n- The ablations, on {words(ABLATED)}, are trained for {recipe.ablation_epochs} epochs each."
            if recipe.ablations
            else ""
        ),
        "## Measured",
        *(f"### {table.title}\n\n{table.to_markdown()}" for table in tables),
    ]
    known = zoo_card(recipe, trained.results)
    scores = [PublishedScore(**score) for score in known["scores"]]
    return metadata(trained.model.spec, scores, training_data=known["training_data"]) + "\n\n".join(parts) + "\n"

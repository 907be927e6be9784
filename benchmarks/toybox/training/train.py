"""Train all of the Toybox from nothing: the CLIP, a lens for every sensor in front of its frozen ViT, and the ablations.

    train_toybox("runs/toybox")

Every stage leaves its result in the folder and is not done twice; within a stage training goes on where it was interrupted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vitlens.benchmarks.toybox.demo.evaluate import HELD_OUT, Results, evaluate
from vitlens.benchmarks.toybox.sensors.drawn import Rows, draw
from vitlens.benchmarks.toybox.training.card import write_card
from vitlens.benchmarks.toybox.training.clip import train_clip
from vitlens.benchmarks.toybox.training.lenses import ABLATED, LENSES, ablation_recipe, lens_recipe
from vitlens.benchmarks.toybox.training.recipes import ToyboxRecipe, Trained
from vitlens.benchmarks.toybox.world.objects import World
from vitlens.disk import atomic
from vitlens.display.terminal import remark
from vitlens.errors import OptionError
from vitlens.model import ViTLens, load
from vitlens.train import LensTask, Recipe, Trainer
from vitlens.train.start import assembled

NAME = "vitlens-toybox"
VALIDATION = 280
"""Objects that are classified after every epoch of a lens."""


def train_toybox(folder: str | os.PathLike[str], recipe: ToyboxRecipe | None = None, *, workers: int = 2) -> Trained:
    """Train everything in `folder`, or go on there; `folder`/model is the model with its card and table.

    Raises:
        OptionError: the folder holds a training with other numbers.
    """
    recipe, home = recipe or ToyboxRecipe(), Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    run = _Run(home, recipe, workers)
    run.claim()
    clip = run.clip()
    encoders = {sensor: run.lens(clip, sensor) for sensor in recipe.sensors}
    model = run.assemble(encoders)
    results = run.measured("evaluation", model)
    ablations = {name: run.ablation(clip, name) for name in recipe.ablations} if ABLATED in recipe.sensors else {}
    trained = Trained(model, results, ablations, run.seconds())
    write_card(home / "model", recipe, trained)
    return trained


class _Run:
    """The stages of one training, each kept in its own folder."""

    def __init__(self, home: Path, recipe: ToyboxRecipe, workers: int) -> None:
        self.home, self.recipe, self.workers = home, recipe, workers
        self.world = World(recipe.seed)
        self._clip = home / "clip" / "model"

    def claim(self) -> None:
        """Note the recipe in the folder, or compare with what is noted there; sensors and ablations may be added later."""
        path = self.home / "toybox-recipe.json"
        mine = json.loads(json.dumps(asdict(replace(self.recipe, sensors=(), ablations=()))))
        if not path.exists():
            _write_json(path, mine)
        elif (found := json.loads(path.read_text(encoding="utf-8"))) != mine:
            raise OptionError(f"toybox: {self.home} holds a training with other numbers ({found}); choose another folder")

    # --- stages ----------------------------------------------------------------------------------------------------------

    def clip(self) -> ViTLens:
        """The CLIP, trained on what is seen and described; or that of the model to start from."""
        if self.recipe.start is not None:
            return load(self.recipe.start, modalities=["image", "text"], device="cpu")
        recipe = replace(self.recipe.clip, seed=self.recipe.seed)
        return self._model_in(self._clip, "CLIP", lambda: train_clip(self.home, recipe, workers=self.workers))

    def lens(self, clip: ViTLens, sensor: str) -> ViTLens:
        """One sensor's encoder beside its anchors."""
        return self._trained(clip, self._recipe(sensor))

    def ablation(self, clip: ViTLens, name: str) -> Results:
        """The table of one ablation, measured on its sensor alone."""
        output = str(self.home / "ablations" / name)
        recipe = ablation_recipe(name, self._recipe(ABLATED), epochs=self.recipe.ablation_epochs, output=output)
        model = self._trained(clip, recipe)
        return self.measured(f"evaluation of {name}", _only(model, ABLATED), self.home / "ablations" / f"{name}.json")

    def assemble(self, lenses: dict[str, ViTLens]) -> ViTLens:
        """One model with all encoders, in float16 as it ships."""
        model = load(self.recipe.start or self._clip, device="cpu")  # a model of its own: it becomes float16 in place
        for sensor, lens in lenses.items():
            spec = next(e for e in lens.spec.encoders if e.modality == sensor)
            model = assembled(model, NAME, spec, lens.encoders[sensor])  # type: ignore[arg-type]
        model.half().save_pretrained(self.home / "model")
        return load(self.home / "model", device="cpu")

    def measured(self, stage: str, model: ViTLens, path: Path | None = None) -> Results:
        """The table of a model; kept, and measured anew when the model's sensors change."""
        path = path or self.home / "results.json"
        if path.is_file():
            kept = Results.from_dict(json.loads(path.read_text(encoding="utf-8")))
            if {a.sensor for a in kept.accuracies} == set(model.modalities) & {"image", *LENSES}:
                return kept
        with self._clock(stage):
            found = evaluate(model, self.home / "drawn", world=self.world, counts=HELD_OUT, workers=self.workers)
        _write_json(path, found.to_dict())
        return found

    # --- how -------------------------------------------------------------------------------------------------------------

    def _recipe(self, sensor: str) -> Recipe:
        recipe = self.recipe
        return lens_recipe(
            sensor,
            width=recipe.clip.width,
            epochs=recipe.lens_epochs(sensor),
            seed=recipe.seed,
            output=str(self.home / "lenses" / sensor),
            cache=str(self.home / "anchors"),
            batch_size=recipe.batch_size,
            precision=recipe.precision,
            tokens=recipe.tokens,
            num_workers=self.workers,
        )

    def _trained(self, clip: ViTLens, recipe: Recipe) -> ViTLens:
        sensor = recipe.model.modality
        count = self.recipe.lens_objects(sensor)

        def train() -> None:
            remark(f"{recipe.name}: {count} objects, {recipe.schedule.epochs} epochs")
            train = draw(self.home / "drawn", self.world, "train", count, ["image", sensor], workers=self.workers)
            held = draw(self.home / "drawn", self.world, "validation", VALIDATION, ["image", sensor], workers=self.workers)
            rows = Rows(train, sensor), Rows(held, sensor)
            Trainer(LensTask(recipe, model=clip, train=rows[0], evaluation=rows[1])).run()

        return self._model_in(recipe.folder / "model", recipe.name, train)

    def _model_in(self, folder: Path, stage: str, train: Callable[[], object]) -> ViTLens:
        """The model in a folder; `train` puts it there, unless it was done before."""
        done = folder / "done"
        if not done.is_file():
            with self._clock(stage):
                train()
            done.touch()
        return load(folder, device="cpu")

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        """Add up the seconds of a stage, over interruptions by Ctrl-C too."""
        begin = time.monotonic()
        try:
            yield
        finally:
            known = self.seconds()
            known[stage] = known.get(stage, 0.0) + time.monotonic() - begin
            _write_json(self.home / "seconds.json", known)

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds so far."""
        path = self.home / "seconds.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _only(model: ViTLens, sensor: str) -> ViTLens:
    """The model with one sensor and its words."""
    spec = model.spec.restricted([sensor, "text"])
    return ViTLens(spec=spec, encoders={sensor: model.encoders[sensor]}, text=model.text).eval()  # type: ignore[dict-item]


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

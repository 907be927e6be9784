"""Training: one loop that runs a task. Training a lens is one; it is described by a recipe.

from vitlens.train import LensTask, Trainer, load_recipe
Trainer(LensTask(load_recipe("vitlens-l-audio", set=["data.train=audio.csv"]))).run()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlens.train.lens_task import LensTask as LensTask
    from vitlens.train.loop import NonFiniteLoss as NonFiniteLoss
    from vitlens.train.loop import Trainer as Trainer
    from vitlens.train.options import RunOptions as RunOptions
    from vitlens.train.parameters import parameter_table as parameter_table
    from vitlens.train.recipe import Recipe as Recipe
    from vitlens.train.recipe_files import load_recipe as load_recipe
    from vitlens.train.recipe_files import shipped_recipes as shipped_recipes
    from vitlens.train.task import Task as Task
    from vitlens.train.task import TrainingResult as TrainingResult

_HOMES = {
    "LensTask": "lens_task",
    "NonFiniteLoss": "loop",
    "Recipe": "recipe",
    "RunOptions": "options",
    "Task": "task",
    "Trainer": "loop",
    "TrainingResult": "task",
    "load_recipe": "recipe_files",
    "parameter_table": "parameters",
    "shipped_recipes": "recipe_files",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitlens.train' has no attribute {name!r}")
    return getattr(import_module(f"vitlens.train.{_HOMES[name]}"), name)

"""Training a lens: recipes, data, the loop.

from vitlens.train import Trainer, load_recipe
Trainer(load_recipe("vitlens-l-audio", set=["data.train=audio.csv"])).run()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlens.train.loop import NonFiniteLoss as NonFiniteLoss
    from vitlens.train.loop import Result as Result
    from vitlens.train.loop import Trainer as Trainer
    from vitlens.train.parameters import parameter_table as parameter_table
    from vitlens.train.recipe import Recipe as Recipe
    from vitlens.train.recipe_files import load_recipe as load_recipe
    from vitlens.train.recipe_files import shipped_recipes as shipped_recipes

_HOMES = {
    "NonFiniteLoss": "loop",
    "Recipe": "recipe",
    "Result": "loop",
    "Trainer": "loop",
    "load_recipe": "recipe_files",
    "parameter_table": "parameters",
    "shipped_recipes": "recipe_files",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitlens.train' has no attribute {name!r}")
    return getattr(import_module(f"vitlens.train.{_HOMES[name]}"), name)

"""LoRA on the ViT's blocks through peft: low-rank updates while training, plain weights when it is over."""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import nn

from vitlens.errors import MissingDependencyError, OptionError
from vitlens.train.options import INSTALL
from vitlens.train.recipe import LoraOptions
from vitlens.vit import ViT


def lora_targets(vit: ViT, which: str) -> list[str]:
    """Names of the modules in the blocks that get an update: attention projections, the MLP's layers, or both."""
    found: list[str] = []
    for name, module in vit.named_modules():
        attention = re.search(r"attn|attention", name) is not None
        if not name.startswith("blocks.") or (which == "attention" and not attention) or (which == "mlp" and attention):
            continue
        inside = any(name.startswith(f"{other}.") for other in found)  # the projections of nn.MultiheadAttention belong to it
        if isinstance(module, nn.MultiheadAttention) or (isinstance(module, nn.Linear) and not inside):
            found.append(name)
    return found


def add_lora(vit: ViT, options: LoraOptions) -> None:
    """Put updates into `vit`, in place; they train, and so does what of the ViT trained before.

    Raises:
        MissingDependencyError: peft is not installed.
        OptionError: a rank below 1, or a ViT without anything to update.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError(f"LoRA needs peft: {INSTALL}") from error
    targets = lora_targets(vit, options.targets)
    if options.rank < 1 or not targets:
        raise OptionError(
            f"model.lora: rank {options.rank}, {len(targets)} layers to update ({options.targets}): nothing to train"
        )
    trained = [
        name for name, p in vit.named_parameters() if p.requires_grad and not any(name.startswith(f"{t}.") for t in targets)
    ]
    exact = "|".join(map(re.escape, targets))
    alpha = cast(int, options.alpha)  # peft divides it by the rank: any number will do
    config = LoraConfig(r=options.rank, lora_alpha=alpha, lora_dropout=options.dropout, target_modules=f"^({exact})$")
    inject_adapter_in_model(config, cast(Any, vit))
    for name in trained:
        vit.get_parameter(name).requires_grad_(True)


def merge_lora(vit: ViT) -> None:
    """Fold the updates into the weights and take the extra layers out, in place; other ViTs with the same tensors keep theirs."""
    from peft.tuners.lora import LoraLayer

    outer: list[str] = []
    for name, module in vit.named_modules():
        if isinstance(module, LoraLayer) and not any(name.startswith(f"{other}.") for other in outer):
            outer.append(name)
    for name in outer:
        layer = cast(Any, vit.get_submodule(name))
        _unshare(layer.get_base_layer())
        with torch.no_grad():
            if hasattr(layer, "unload_and_optionally_merge_module"):
                plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
            else:
                layer.merge()
                plain = layer.get_base_layer()
        holder, _, leaf = name.rpartition(".")
        setattr(vit.get_submodule(holder), leaf, plain.requires_grad_(False))


def _unshare(module: nn.Module) -> None:
    for inner in module.modules():
        for name, parameter in list(inner._parameters.items()):
            if parameter is not None:
                inner._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)

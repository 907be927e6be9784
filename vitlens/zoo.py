"""The zoo: what a name stands for - its spec, and its weights, found on this machine or on the Hub and read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from vitlens import checkpoint
from vitlens.cards import PACKAGE, ModelCard, Weights, all_cards
from vitlens.errors import CheckpointError, ModelError, OptionError
from vitlens.fingerprint import fingerprint_of_state
from vitlens.hub import HubFile, hub_file
from vitlens.hub_check import told_of_damage
from vitlens.modality import Modality, get_modality
from vitlens.spec import ModelSpec
from vitlens.weights_files import read_state_dict

LOG = logging.getLogger(__name__)
LARGEST_CONFIG = 1 << 24
"""Bytes of a config.json; those of real models are a thousandth of it."""


@dataclass(frozen=True)
class Pretrained:
    """What a name stands for: a spec, and the tensors of the towers in it."""

    spec: ModelSpec
    state: dict[str, Tensor] | None
    """Native key -> tensor; None: made by the formula of `checkpoint.formula_state`."""
    source: str
    """Where the tensors come from, for messages."""


def list_models() -> list[str]:
    """Names of all models in the zoo."""
    return list(all_cards())


def card(name: str) -> ModelCard:
    """The card of a zoo model.

    Raises:
        ModelError: no such model.
    """
    cards = all_cards()
    if name not in cards:
        raise ModelError(f"unknown model {name!r}; known: {', '.join(cards)}")
    return cards[name]


def find_spec(name: str | os.PathLike[str]) -> ModelSpec:
    """The spec of a zoo name or a native folder; no weights are read.

    Raises:
        ModelError: neither of them.
        CheckpointError: a config.json that cannot be read.
        OptionError: one with fields that are missing or not known.
    """
    name = os.fspath(name)
    if name in all_cards():
        return card(name).spec
    if (Path(name) / "config.json").is_file():
        return _read_config(Path(name))
    raise ModelError(f"unknown model {name!r}: not a zoo name ({', '.join(all_cards())}), not a folder with config.json")


def find_modality(name: str, model: str | os.PathLike[str] | None = None) -> Modality:
    """The modality with the options `model` reads and preprocesses with; its own defaults without a model. No weights are read.

    Raises:
        ModelError: neither a zoo name nor a folder.
        ModalityError: a modality the model does not have.
    """
    return get_modality(name) if model is None else find_spec(model).modality(name)


def find_pretrained(
    name: str | os.PathLike[str], *, modalities: Iterable[str] | None = None, weights: str | os.PathLike[str] | None = None
) -> Pretrained:
    """The spec and the tensors of a zoo name, a native folder or a Hub repository, of the towers that `modalities` need.

    Raises:
        ModelError: unknown name, or weights that are neither on this machine nor to be had; says what to put where.
        ModalityError: a modality the model does not have.
        CheckpointError: files that are not what the card says.
    """
    path = Path(name)
    name = os.fspath(name)
    if name in all_cards():
        return read_card(card(name), modalities=modalities, weights=weights)
    if path.is_dir():
        return read_folder(path, modalities=modalities)
    if name.count("/") == 1 and not path.exists() and not name.startswith((".", "~", "/")):
        return _read_repository(name, modalities)
    raise ModelError(
        f"unknown model {name!r}: not a zoo name ({', '.join(all_cards())}), not a folder with config.json and "
        "model.safetensors, not a Hub repository 'owner/name'"
    )


def read_folder(folder: Path, *, modalities: Iterable[str] | None = None) -> Pretrained:
    """A folder written by `save_pretrained`.

    Raises:
        CheckpointError: no or unreadable config.json / model.safetensors.
    """
    whole = _read_config(folder)
    spec = whole.restricted(modalities)
    return Pretrained(spec, checkpoint.read_native(folder, wanted=_towers(spec), known=_towers(whole)), str(folder))


def _read_repository(repo: str, modalities: Iterable[str] | None) -> Pretrained:
    """A Hub repository in the native format."""
    wanted = [HubFile(repo, (name,)) for name in ("config.json", "model.safetensors")]
    again = f"run `hf download {repo} --force-download`"
    paths = [
        _download(file, repo, "a folder (config.json and model.safetensors), and give that folder to load()") for file in wanted
    ]
    with told_of_damage(list(zip(paths, wanted, strict=True)), again):
        return read_folder(paths[-1].parent, modalities=modalities)


def _read_config(folder: Path) -> ModelSpec:
    config = folder / "config.json"
    try:
        if (size := config.stat().st_size) > LARGEST_CONFIG:
            raise ValueError(f"{size} bytes, at most {LARGEST_CONFIG}")
        return ModelSpec.from_dict(json.loads(config.read_text(encoding="utf-8")))
    except RecursionError as error:
        raise CheckpointError(f"{config}: not a readable model configuration (nested too deep)") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config}: not a readable model configuration ({error})") from error


def _towers(spec: ModelSpec) -> list[str]:
    return [encoder.modality for encoder in spec.encoders] + (["text"] if spec.text else [])


def read_card(
    chosen: ModelCard, *, modalities: Iterable[str] | None = None, weights: str | os.PathLike[str] | None = None
) -> Pretrained:
    """The weights that a card names, all found before any is read.

    Raises:
        ModelError, ModalityError, CheckpointError: as `find_pretrained`.
    """
    spec = chosen.spec.restricted(modalities)
    wanted = set(_towers(spec))
    used = [file for file in chosen.weights if wanted & set(file.towers)]
    if used[0].kind == "formula":
        return Pretrained(spec, None, chosen.name)
    if used[0].kind == "shipped":
        if weights is not None:
            raise OptionError(f"{chosen.name} is part of the package: leave weights= out, or load the folder itself by its path")
        return read_folder(find_weights(used[0], chosen).parent, modalities=modalities)
    paths = {file: find_weights(file, chosen, weights) for file in used}
    state: dict[str, Tensor] = {}
    for file, path in paths.items():
        content = _read_official(file, path, chosen, wanted & set(file.towers))
        state |= {key: value for key, value in content.state.items() if checkpoint.tower_of(key) in wanted & set(file.towers)}
        if content.logit_scale is not None:
            spec = replace(spec, logit_scale=content.logit_scale)
        if content.vit:
            spec = _with_fingerprint(spec, content.vit)
        if content.left_out:
            LOG.info("%s: left out %s", path, ", ".join(content.left_out))
    return Pretrained(spec, state, ", ".join(map(str, paths.values())))


def _with_fingerprint(spec: ModelSpec, vit: Mapping[str, Tensor]) -> ModelSpec:
    """The spec of a lens for a host's ViT, which knows that ViT's fingerprint from the weights beside the lens."""
    [encoder] = spec.encoders
    parts = {name: list(values) for name, values in fingerprint_of_state(vit).parts.items()}
    known = replace(encoder.vit, config={**(encoder.vit.config or {}), "fingerprint": parts})
    return replace(spec, encoders=(replace(encoder, vit=known),))


def card_of_file(path: Path, modality: str | None = None) -> ModelCard:
    """The card whose weights a file holds, by its name, else by the layout of its keys; `modality` is a sensor it must have.

    Raises:
        InputError, CheckpointError: no weights, or a layout of no card with that sensor.
        ModelError: several cards have such files.
    """
    files = [(card, file) for card in all_cards().values() for file in card.weights if modality in (None, *file.towers)]
    named = [card for card, file in files if file.kind == "hub" and path.name in file.names]
    if named:
        return named[0]
    layout = checkpoint.detect_layout(read_state_dict(path))
    fitting = [card for card, file in files if file.layout == layout]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise ModelError(f"{path}: weights in the layout {layout}, which no model with the modality {modality} has")
    names = ", ".join(card.name for card in fitting)
    raise ModelError(f"{path}: weights in the layout {layout}, which {names} have: load(NAME, weights={str(path)!r}) says which")


def _read_official(file: Weights, path: Path, chosen: ModelCard, wanted: set[str]) -> checkpoint.Imported:
    sensor = next((tower for tower in file.towers if tower not in ("image", "text")), "")
    source = hub_source(file, chosen)
    with told_of_damage([(path, source)], f"run `vitlens models {chosen.name} --redownload`", file.sha256):
        state = read_state_dict(path)
    content = checkpoint.import_official(state, sensor=sensor, layout=file.layout)
    absent, strange = wanted - content.towers, content.towers - set(file.towers)
    if absent or strange:
        problem = f"no tower for {', '.join(sorted(absent))}" if absent else f"a tower for {', '.join(sorted(strange))}"
        raise CheckpointError(f"{path}: holds {problem}; {chosen.name} expects {', '.join(file.towers)}")
    return content


def find_weights(file: Weights, chosen: ModelCard, folder: str | os.PathLike[str] | None = None) -> Path:
    """The local path of a weights file: `folder`, VITLENS_WEIGHTS, the Hugging Face cache, the Hub - in this order.

    Raises:
        ModelError: nowhere; says what to download and where to put it.
    """
    if file.kind == "shipped":
        return PACKAGE / file.file / "model.safetensors"
    places = [Path(place) for place in (folder, os.environ.get("VITLENS_WEIGHTS")) if place]
    if folder is not None and not places[0].exists():
        raise ModelError(f"{places[0]}: no such file or folder of weights for {chosen.name}")
    if places and places[0].is_file() and file.kind != "open_clip":
        return places[0]
    wanted = hub_source(file, chosen)
    if wanted is None:
        raise ModelError(f"{chosen.name}: weights of the kind {file.kind} lie in no file")
    for place in places:
        for name in wanted.names:
            for candidate in (place / wanted.repo.split("/")[-1] / name, place / name):
                if candidate.is_file():
                    return candidate
    return _download(wanted, chosen.name, "a folder that the environment variable VITLENS_WEIGHTS (or load(weights=...)) names")


def hub_source(file: Weights, chosen: ModelCard) -> HubFile | None:
    """Where weights of a card lie on the Hub, also those named by their open_clip tag; None for weights that do not lie there."""
    if file.kind == "open_clip":
        import open_clip

        architecture = chosen.spec.text.name if chosen.spec.text else chosen.spec.encoders[0].vit.name
        repo, _, name = open_clip.get_pretrained_cfg(architecture, file.file)["hf_hub"].rpartition("/")
        return HubFile(repo, (name,) if name else ("open_clip_pytorch_model.bin", "open_clip_model.safetensors"), file.revision)
    return HubFile(file.repo, file.names, file.revision) if file.kind == "hub" else None


def _download(wanted: HubFile, model: str, place: str) -> Path:
    advice = f"Download it where there is network and put it into {place}"
    return hub_file(wanted, f"{model} needs the file {wanted}", advice)

"""The zoo: find a model's weights - on this machine or on the Hub - and load them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from vitlens import checkpoint
from vitlens.cards import TOYBOX, ModelCard, Weights, all_cards
from vitlens.errors import CheckpointError, ModelError, OptionError
from vitlens.model import ViTLens
from vitlens.spec import ModelSpec


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


def load(
    name: str | os.PathLike[str],
    *,
    modalities: Iterable[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    weights: str | os.PathLike[str] | None = None,
) -> ViTLens:
    """Load a model: a zoo name, a native folder, or a Hub repository "owner/name" in the native format.

    Only the towers that `modalities` need are built. `device` None takes CUDA, then Apple's MPS, then the CPU; `dtype` is
    the weights' own. `weights` is a folder that holds the files the card names (default: the folder in the environment variable
    VITLENS_WEIGHTS, then the Hugging Face cache, then the Hub), or for a card with one file that file itself.

    Raises:
        OptionError: a device that is not there, or a dtype that is not floating-point.
        ModelError: unknown name, or weights that are neither on this machine nor to be had; says what to put where.
        ModalityError: a modality the model does not have.
        CheckpointError: weights that do not fit, key by key.
    """
    target = chosen_device(device)
    if not dtype.is_floating_point:
        raise OptionError(f"dtype must be a floating-point type, found {dtype}")
    path = Path(name)
    if os.fspath(name) in all_cards():
        model = _load_card(card(os.fspath(name)), modalities, dtype, weights)
    elif path.is_dir():
        model = load_native(path, modalities=modalities, dtype=dtype)
    elif os.fspath(name).count("/") == 1 and not path.exists() and not os.fspath(name).startswith((".", "~", "/")):
        model = load_native(_download_folder(os.fspath(name)), modalities=modalities, dtype=dtype)
    else:
        raise ModelError(
            f"unknown model {os.fspath(name)!r}: not a zoo name ({', '.join(all_cards())}), not a folder with config.json and "
            "model.safetensors, not a Hub repository 'owner/name'"
        )
    return model.to(target)


def chosen_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name; None takes CUDA if there is one, then MPS, then the CPU.

    Raises:
        OptionError: no such device on this machine.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return accelerator if accelerator is not None and accelerator.type in ("cuda", "mps") else torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"{str(name)!r} is no torch device: give cpu, cuda, cuda:1, mps or xpu") from error
    count = torch.accelerator.device_count() if accelerator is not None else 0
    there = device.type == "cpu" or (accelerator is not None and device.type == accelerator.type)
    if not there or (device.index or 0) >= max(count, 1):
        raise OptionError(f"device {name}: torch finds no such device on this machine (vitlens doctor shows what it finds)")
    return device


def load_native(folder: Path, *, modalities: Iterable[str] | None = None, dtype: torch.dtype | None = None) -> ViTLens:
    """Load a folder written by `save_pretrained`.

    Raises:
        CheckpointError: no or unreadable config.json / model.safetensors, or weights that do not fit.
    """
    import json

    config = folder / "config.json"
    try:
        whole = ModelSpec.from_dict(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config}: not a readable model configuration ({error})") from error
    spec = whole.restricted(modalities)
    with torch.device("meta"):
        model = ViTLens.from_spec(spec)
    state = checkpoint.read_native(folder, wanted=_towers(spec), known=_towers(whole))
    checkpoint.fill_model(model, state, source=str(folder), dtype=dtype)
    return model


def _towers(spec: ModelSpec) -> list[str]:
    return [encoder.modality for encoder in spec.encoders] + (["text"] if spec.text else [])


def _load_card(
    chosen: ModelCard, modalities: Iterable[str] | None, dtype: torch.dtype | None, folder: str | os.PathLike[str] | None
) -> ViTLens:
    spec = chosen.spec.restricted(modalities)
    wanted = set(_towers(spec))
    used = [file for file in chosen.weights if wanted & set(file.towers)]
    if used[0].kind == "shipped":
        if folder is not None:
            raise OptionError(f"{chosen.name} is part of the package: leave weights= out, or load the folder itself by its path")
        return load_native(find_weights(used[0], chosen).parent, modalities=modalities, dtype=dtype)
    paths = {file: find_weights(file, chosen, folder) for file in used if file.kind != "formula"}  # all found before any is read
    with torch.device("meta"):
        model = ViTLens.from_spec(spec)
    state: dict[str, Tensor] = {}
    for file in used:
        if file.kind == "formula":
            state |= checkpoint.formula_state(model)
            continue
        sensor = next((t for t in file.towers if t not in ("image", "text")), "")
        content = checkpoint.import_official(checkpoint.read_state_dict(paths[file]), sensor=sensor, layout=file.layout)
        absent, strange = wanted & set(file.towers) - content.towers, content.towers - set(file.towers)
        if absent or strange:
            problem = f"no tower for {', '.join(sorted(absent))}" if absent else f"a tower for {', '.join(sorted(strange))}"
            raise CheckpointError(f"{paths[file]}: holds {problem}; {chosen.name} expects {', '.join(file.towers)}")
        state |= {k: v for k, v in content.state.items() if checkpoint.tower_of(k) in wanted & set(file.towers)}
        if content.logit_scale is not None:
            model.logit_scale = content.logit_scale
    checkpoint.fill_model(model, state, source=", ".join(map(str, paths.values())) or chosen.name, dtype=dtype)
    return model


def find_weights(file: Weights, chosen: ModelCard, folder: str | os.PathLike[str] | None = None) -> Path:
    """The local path of a weights file: `folder`, VITLENS_WEIGHTS, the Hugging Face cache, the Hub - in this order.

    Raises:
        ModelError: nowhere; says what to download and where to put it.
    """
    if file.kind == "shipped":
        return TOYBOX / "model.safetensors"
    places = [Path(place) for place in (folder, os.environ.get("VITLENS_WEIGHTS")) if place]
    if folder is not None and not places[0].exists():
        raise ModelError(f"{places[0]}: no such file or folder of weights for {chosen.name}")
    if places and places[0].is_file() and file.kind != "open_clip":
        return places[0]
    if file.kind == "given":
        raise ModelError(f"{chosen.name}: give the file of {file.file} with load(..., weights=FILE); {chosen.source}")
    repo, name = (file.repo, file.file) if file.kind == "hub" else _open_clip_source(chosen, file.file)
    for place in places:
        for candidate in (place / repo.split("/")[-1] / name, place / name):
            if candidate.is_file():
                return candidate
    return _download(repo, name, chosen.name)


def _open_clip_source(chosen: ModelCard, tag: str) -> tuple[str, str]:
    import open_clip

    architecture = chosen.spec.text.name if chosen.spec.text else chosen.spec.encoders[0].vit.name
    repo = open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"].strip("/")
    return repo, "open_clip_pytorch_model.bin"


def _download(repo: str, name: str, model: str) -> Path:
    place = "a folder that the environment variable VITLENS_WEIGHTS (or load(weights=...)) names"
    if model == repo:  # a repository in the native format
        place = "a folder (config.json and model.safetensors), and give that folder to load()"
    advice = (
        f"{model} needs the file {name} of the Hub repository {repo}. Download it where there is network and put it into {place}"
    )
    return hub_file(repo, name, advice)


def hub_file(repo: str, name: str, advice: str) -> Path:
    """A file from the Hugging Face cache or the Hub; without network an error within seconds.

    Raises:
        ModelError: it cannot be had; begins with `advice`.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        pass
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{advice}; HF_HUB_OFFLINE is set, nothing was asked of the network")
    if not hub_reachable():
        raise ModelError(f"{advice}; the Hub cannot be reached from here")
    try:
        return Path(hf_hub_download(repo, name))
    except Exception as error:
        raise ModelError(
            f"{advice}; the download failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        ) from error


def _download_folder(repo: str) -> Path:
    _download(repo, "config.json", repo)
    return _download(repo, "model.safetensors", repo).parent


def hub_reachable(seconds: float = 4.0) -> bool:
    """Whether the Hub answers a request, through a proxy if one is set: never more than `seconds`.

    Its own client retries for half a minute, and longer when something accepts connections and stays silent.
    """
    from huggingface_hub import constants

    answers: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=seconds).close()
            answers.append(True)
        except HTTPError:  # an answer, if not a friendly one
            answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # name resolution has no timeout of its own
    thread.start()
    thread.join(seconds)
    return bool(answers and answers[0])

"""The zoo: find a model's weights - on this machine or on the Hub - and load them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from vitlens import checkpoint
from vitlens.cards import ModelCard, Weights, all_cards
from vitlens.errors import CheckpointError, ModelError
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
        ModelError: unknown name, or weights that are neither on this machine nor to be had; says what to put where.
        ModalityError: a modality the model does not have.
        CheckpointError: weights that do not fit, key by key.
    """
    target = torch.device(device) if device is not None else default_device()
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


def default_device() -> torch.device:
    """CUDA if there is one, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_native(folder: Path, *, modalities: Iterable[str] | None = None, dtype: torch.dtype | None = None) -> ViTLens:
    """Load a folder written by `save_pretrained`.

    Raises:
        CheckpointError: no or unreadable config.json / model.safetensors, or weights that do not fit.
    """
    import json

    config = folder / "config.json"
    try:
        spec = ModelSpec.from_dict(json.loads(config.read_text(encoding="utf-8"))).restricted(modalities)
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{config}: not a readable model configuration ({error})") from error
    with torch.device("meta"):
        model = ViTLens.from_spec(spec)
    checkpoint.fill_model(model, checkpoint.read_native(folder, _towers(spec)), source=str(folder), dtype=dtype)
    return model


def _towers(spec: ModelSpec) -> list[str]:
    return [encoder.modality for encoder in spec.encoders] + (["text"] if spec.text else [])


def _load_card(
    chosen: ModelCard, modalities: Iterable[str] | None, dtype: torch.dtype | None, folder: str | os.PathLike[str] | None
) -> ViTLens:
    spec = chosen.spec.restricted(modalities)
    wanted = set(_towers(spec))
    used = [file for file in chosen.weights if wanted & set(file.towers)]
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
        absent = wanted & set(file.towers) - content.towers
        if absent:
            raise CheckpointError(f"{paths[file]}: holds no tower for {', '.join(sorted(absent))}")
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
    """A file from the Hugging Face cache or the Hub; without network an error within seconds."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    advice = (
        f"{model} needs the file {name} of the Hub repository {repo}. Download it on a machine with network and put it into a "
        f"folder that the environment variable VITLENS_WEIGHTS (or load(weights=...)) names"
    )
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
    """Whether the Hub answers at all: one connection, never more than `seconds` (its own client retries for half a minute).

    Behind a proxy the question is left to the client.
    """
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    answers: list[bool] = []

    def ask() -> None:
        try:
            socket.create_connection((address.hostname, port), timeout=seconds).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # name resolution has no timeout of its own
    thread.start()
    thread.join(seconds)
    return bool(answers and answers[0])

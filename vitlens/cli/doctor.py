"""`vitlens doctor`: what works on this machine, and the command that repairs what does not."""

from __future__ import annotations

import importlib
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.text import Text

from vitlens.cli.options import JsonOption, new_app
from vitlens.errors import ModalityError, VitlensError
from vitlens.libraries import extras

if TYPE_CHECKING:
    from vitlens.vit import ViT

app = new_app()
TRIED = ("torch", "torchvision", "timm", "open_clip")
"""Imported, not only looked up: of these a wrong pair of versions installs well and fails at import."""


@dataclass(frozen=True)
class Check:
    """One finding. "note" says something that is no fault (an optional package, weights that were never fetched)."""

    group: Literal["packages", "device", "modalities", "hub", "weights"]
    name: str
    state: Literal["ok", "note", "broken"]
    detail: str
    fix: str = ""


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: packages, devices, every sensor with a real file, the Hub, the weights; say what repairs it."""
    from vitlens.cli.console import say_json

    checks = say_checks(examine(), quiet=as_json)
    if as_json:
        say_json({"broken": broken(checks), "checks": [asdict(check) for check in checks]})
    if broken(checks):
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """All checks, one after the other as they are made."""
    yield Check("packages", "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from check_packages()
    yield from check_devices()
    yield from check_modalities()
    yield from check_hub()
    yield from check_weights()


def check_packages() -> Iterator[Check]:
    """Every requirement of this installation against what is there; then the imports that often fail."""
    from packaging.requirements import Requirement

    required: list[Requirement] = []
    named: set[str] = set()
    try:
        required = [Requirement(text) for text in metadata.requires("vitlens") or ()]
        yield Check("packages", "vitlens", "ok", metadata.version("vitlens"))
    except metadata.PackageNotFoundError:
        yield Check("packages", "vitlens", "broken", "not installed, so that no modality is found", "pip install vitlens")
    for requirement in required:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            named.add(requirement.name)
            yield _requirement(requirement, "broken", f'pip install "{requirement.name}{requirement.specifier}"')
            continue
        extra = next((name for name in extras() if requirement.marker.evaluate({"extra": name})), None)
        if extra is not None and requirement.name not in named:
            named.add(requirement.name)
            yield _requirement(requirement, "note", f'pip install "vitlens[{extra}]"')
    for name in TRIED:
        problem = _import_problem(name)
        if problem:
            yield Check("packages", f"import {name}", "broken", problem, "pip install --force-reinstall vitlens")
    yield from check_torchaudio()


def check_torchaudio() -> Iterator[Check]:
    """A torchaudio of another torch: vitlens does without it, transformers imports it wherever it finds it, and fails."""
    try:
        version = metadata.version("torchaudio")
    except metadata.PackageNotFoundError:
        return
    problem = _import_problem("torchaudio")
    if problem:
        detail = f"{version} does not fit this torch ({problem}); vitlens needs none, but transformers and peft fail with it"
        yield Check("packages", "import torchaudio", "broken", detail, "pip uninstall torchaudio")


def _requirement(requirement: Any, worst: Literal["note", "broken"], fix: str) -> Check:
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check("packages", requirement.name, worst, f"not installed{' (optional)' * (worst == 'note')}", fix)
    if not requirement.specifier.contains(found, prereleases=True):
        return Check("packages", requirement.name, worst, f"{found}, but {requirement.specifier} is needed", fix)
    return Check("packages", requirement.name, "ok", found)


def _import_problem(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken binary raises OSError, RuntimeError, AttributeError ...: all of them are the finding
        return _one_line(error)
    return ""


def check_devices() -> Iterator[Check]:
    """What torch can compute on."""
    if _import_problem("torch"):
        return
    import torch

    from vitlens.devices import cuda_problem

    yield Check("device", "cpu", "ok", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            yield Check("device", f"cuda:{number}", "ok", f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    elif problem := cuda_problem():
        yield Check("device", "cuda", "broken", problem, "update the NVIDIA driver, or install a torch built for an older CUDA")
    elif torch.version.cuda:
        yield Check("device", "cuda", "note", f"torch is built for CUDA {torch.version.cuda}, but finds no GPU or driver")
    else:
        yield Check("device", "cuda", "note", "torch is built without CUDA")
    if torch.backends.mps.is_available():
        yield Check("device", "mps", "ok", "Apple GPU")


def check_modalities() -> Iterator[Check]:
    """Every modality's example written to a real file, read back, preprocessed, and put through its ModEmbed."""
    from vitlens.modality import list_modalities

    names = list_modalities()
    if not names:
        fix = "pip install vitlens (or pip install -e . in a checkout)"
        yield Check("modalities", "none", "broken", "no modality is registered: the entry points are missing", fix)
    for name in names:
        yield check_modality(name)


def check_modality(name: str) -> Check:
    """Whether one modality reads a real file of its own, turns it into a tensor, and that into tokens."""
    from vitlens.encoder import check_embed, token_width
    from vitlens.modality import get_modality

    try:
        with tempfile.TemporaryDirectory(prefix="vitlens-doctor-") as folder:
            modality = get_modality(name)
            path = modality.write(modality.example(), Path(folder), "example")
            tensor = modality.transform(modality.load(path))
        if modality.tower == "vision" and not modality.shares:
            width = token_width(modality, _tiny_vit())
            check_embed(modality, modality.build_embed(width, _tiny_vit()).eval(), width)
        kind = str(tensor.dtype).removeprefix("torch.")
        return Check("modalities", name, "ok", f"a {path.suffix} file became {kind} {list(tensor.shape)}")
    except Exception as failure:  # whatever a modality, possibly a third party's, does wrong is the finding
        cause = failure.__cause__ if isinstance(failure, ModalityError) else None
        error = cause if isinstance(cause, ImportError) else failure
        fix = "vitlens modalities " + name
        if isinstance(error, ImportError):  # MissingDependencyError holds the pip command
            missing = None if isinstance(error, VitlensError) else error.name
            fix = f"pip install {missing.partition('.')[0]}" if missing else ""
        return Check("modalities", name, "broken", _one_line(error), fix)


@cache
def _tiny_vit() -> ViT:
    """A ViT without trained weights, for a ModEmbed to measure itself by."""
    from vitlens.towers import build_vit
    from vitlens.zoo import find_spec

    return build_vit(find_spec("vitlens-tiny-random").encoders[0].vit)


def check_hub() -> Iterator[Check]:
    """Where weights are looked for: the Hub's cache, VITLENS_WEIGHTS, the network."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    place = next(parent for parent in (cache, *cache.parents) if parent.exists())
    if os.access(place, os.W_OK):
        yield Check("hub", "cache", "ok", f"{cache}{'' if cache.exists() else ' (not there yet)'}")
    else:
        yield Check("hub", "cache", "broken", f"{cache} cannot be written", "set HF_HOME to a folder of yours")
    if constants.HF_HUB_OFFLINE:
        yield Check("hub", "network", "note", "HF_HUB_OFFLINE is set: nothing is downloaded")
    else:
        from vitlens.hub import unreachable

        trouble = unreachable()
        detail = f"the Hub does not answer{trouble and f' ({trouble})'}: only weights on this machine can be used"
        yield Check("hub", "network", "ok" if trouble is None else "note", "the Hub answers" if trouble is None else detail)
    folder = os.environ.get("VITLENS_WEIGHTS")
    if not folder:
        yield Check("hub", "VITLENS_WEIGHTS", "note", "not set (a folder with weights files that were copied here)")
    elif not os.path.exists(folder):
        yield Check("hub", "VITLENS_WEIGHTS", "broken", f"{folder}: no such folder", "unset it, or name the folder")
    else:
        yield Check("hub", "VITLENS_WEIGHTS", "ok", folder)


def check_weights() -> Iterator[Check]:
    """Which zoo models can be loaded here without the network."""
    from vitlens.cli.models import weights_here, weights_name
    from vitlens.zoo import card, list_models

    for name in list_models():
        absent = [weights_name(file, card(name)) for file, path in weights_here(card(name)).items() if path is None]
        if absent:
            yield Check("weights", name, "note", f"not on this machine: {', '.join(absent)}")
        else:
            yield Check("weights", name, "ok", "on this machine")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text if isinstance(error, VitlensError) else f"{type(error).__name__}: {text}")[:500]


def broken(checks: list[Check]) -> bool:
    """Whether something has to be repaired."""
    return any(check.state == "broken" for check in checks)


def say_checks(checks: Iterable[Check], *, quiet: bool = False) -> list[Check]:
    """Print findings as they come, broken ones with what repairs them; returns all."""
    from vitlens.display.terminal import console

    signs = {"ok": ("ok", "green"), "note": ("-", "yellow"), "broken": ("BROKEN", "bold red")}
    made: list[Check] = []
    screen = console()
    for check in checks:
        if not quiet:
            if not made or made[-1].group != check.group:
                screen.print(check.group, style="bold")
            sign, style = signs[check.state]
            line = Text.assemble("  ", (f"{sign:7}", style), f"{check.name:27} ", check.detail)
            screen.print(line, soft_wrap=True)
            if check.fix and check.state != "ok":
                screen.print(f"{'':9} -> {check.fix}", soft_wrap=True, style="bold")
        made.append(check)
    if not quiet:
        problems = sum(check.state == "broken" for check in made)
        screen.print(f"{problems} to repair" if problems else "everything needed works", style="bold")
    return made

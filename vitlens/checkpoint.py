"""Weights in and out: the native format (config.json + model.safetensors) and strict import of the official layouts.

Official layouts (key manifests measured from the public reference, see tests/reference/vitlens):

    one_stop   vitlens.<image|text|pc|...>.*                         all modalities in one file
    tri_tower  visual.* (the sensor), image.*, text without prefix   one training file per modality, `module.` from DDP
    openshape  backbone.* (the sensor only)                          bigG point clouds, blocks renumbered after skipping
    lens       visual.visual_adapter.*, visual.perceiver.*           for a host model's ViT, trimmed or not: see lens_files
    open_clip  visual.* (the image), text without prefix             the CLIP anchors

Every key of a file is used, belongs to a tower that was not asked for, or is named in a CheckpointError.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitlens.disk import atomic
from vitlens.encoder import LensEncoder
from vitlens.errors import CheckpointError
from vitlens.lens_files import is_lens_file, split_lens_file
from vitlens.vit import FrozenViT
from vitlens.weights_files import some

Layout = Literal["one_stop", "tri_tower", "openshape", "lens", "open_clip"]

OFFICIAL_NAMES = {"pc": "point_cloud"}
"""Official modality names that differ from ours."""

_TOWER = (
    ("visual_adapter.", "embed."),
    ("perceiver.", "lens."),
    ("conv1.", "embed.conv1."),
    ("class_embedding", "vit.class_token"),
    ("positional_embedding", "vit.positions"),
    ("ln_pre.", "vit.norm_pre."),
    ("transformer.resblocks.", "vit.blocks."),
    ("ln_post.", "vit.norm_post."),
    ("proj", "vit.proj"),
)
_TEXT = (
    ("token_embedding.", "token_embedding."),
    ("positional_embedding", "positions"),
    ("transformer.resblocks.", "blocks."),
    ("ln_final.", "norm_final."),
    ("text_projection", "projection"),
)


FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8, torch.bool)
"""What weights, and what counters and masks beside them, may be stored as."""


@dataclass(frozen=True)
class Imported:
    """What an official file held: native key -> tensor, the towers it describes, and its temperature if it has one.

    Of a lens for a host's ViT: `vit` is that ViT where the file has it, under timm's names, and `left_out` says in words what
    else it held.
    """

    state: dict[str, Tensor]
    towers: frozenset[str]
    logit_scale: float | None = None
    vit: Mapping[str, Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def detect_layout(keys: Iterable[str]) -> Layout:
    """The official layout a file's keys follow.

    Raises:
        CheckpointError: none of them.
    """
    keys = [key for key in keys if key != "logit_scale"]
    heads = {key.split(".")[0] for key in keys}
    if heads == {"vitlens"}:
        return "one_stop"
    if heads == {"backbone"}:
        return "openshape"
    if is_lens_file(keys):
        return "lens"
    if {"visual", "image"} <= heads:
        return "tri_tower"
    if {"visual", "transformer", "token_embedding"} <= heads:
        return "open_clip"
    raise CheckpointError(f"unknown layout: keys start with {some(sorted(heads))}")


def import_official(state: Mapping[str, Tensor], *, sensor: str = "", layout: Layout | None = None) -> Imported:
    """Rename an official state dict to native keys.

    `sensor` is the modality that `visual.*` / `backbone.*` of a per-modality file stands for.

    Raises:
        CheckpointError: unknown layout, a key no layout knows, or `sensor` is needed and not given.
    """
    layout = layout or detect_layout(state)
    if layout in ("tri_tower", "openshape", "lens") and not sensor:
        raise CheckpointError(f"a file of layout {layout} holds one sensor's tower: say which modality it is")
    if layout == "lens":
        parts = split_lens_file(state)
        return Imported(_of_lens(parts.lens, sensor), frozenset({sensor}), vit=parts.vit, left_out=parts.left_out)
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state.items():
        if key == "logit_scale" and layout in ("tri_tower", "openshape", "open_clip"):
            continue
        native = _native_key(key, layout, sensor)
        if native is None:
            unknown.append(key)
        else:
            renamed[native] = value
    if unknown:
        raise CheckpointError(f"{len(unknown)} keys that layout {layout} does not have: {some(unknown)}")
    scale = state.get("logit_scale")
    return Imported(renamed, frozenset(map(tower_of, renamed)), None if scale is None else _temperature(scale))


def _temperature(log_scale: Tensor) -> float:
    """exp(logit_scale).

    Raises:
        CheckpointError: no single number, or one that no temperature is the logarithm of.
    """
    if log_scale.numel() != 1 or log_scale.dtype not in FLOATS or not -20 <= float(log_scale) <= 20:
        values = log_scale.flatten()[:4].tolist()
        raise CheckpointError(f"logit_scale is the logarithm of a temperature, found {values} of shape {list(log_scale.shape)}")
    return math.exp(float(log_scale))


def _of_lens(lens: Mapping[str, Tensor], sensor: str) -> dict[str, Tensor]:
    named = {_renamed(key, _TOWER, f"encoders.{sensor}."): value for key, value in lens.items()}
    return {key: value for key, value in named.items() if key is not None}


def _native_key(key: str, layout: Layout, sensor: str) -> str | None:
    head, _, rest = key.partition(".")
    if layout == "one_stop":
        modality, _, rest = rest.partition(".")
        modality = OFFICIAL_NAMES.get(modality, modality)
        return _renamed(rest, _TEXT, "text.") if modality == "text" else _renamed(rest, _TOWER, f"encoders.{modality}.")
    if head in ("visual", "backbone"):
        return _renamed(rest, _TOWER, f"encoders.{'image' if layout == 'open_clip' else sensor}.")
    if head == "image" and layout == "tri_tower":
        return _renamed(rest, _TOWER, "encoders.image.")
    return _renamed(key, _TEXT, "text.")


def _renamed(key: str, table: tuple[tuple[str, str], ...], prefix: str) -> str | None:
    for old, new in table:
        if key == old or (old.endswith(".") and key.startswith(old)):
            return prefix + new + key.removeprefix(old)
    return None


def tower_of(native_key: str) -> str:
    """The modality whose tower a native key belongs to (`encoders.audio.vit.proj` -> "audio")."""
    head, _, rest = native_key.partition(".")
    return "text" if head == "text" else rest.partition(".")[0]


def fill_model(model: nn.Module, state: Mapping[str, Tensor], *, source: str, dtype: torch.dtype | None = None) -> None:
    """Give a model (built on the meta device) the tensors of `state`, which must be exactly its own keys and shapes.

    Positions alone may have rows for the number of tokens that their own lens gives, where that is not the ViT's: the reference
    resizes them when it builds such a lens, and so they stand in its training files. Equal tensors of several encoders become
    one shared parameter, so that the frozen part of a ViT is held once.

    Raises:
        CheckpointError: keys missing or left over, shapes that differ, tied copies that are not equal; each is named.
    """
    _fit_positions(model, state)
    own = model.state_dict(keep_vars=True)
    missing = [k for k in own if k not in state]
    leftover = [k for k in state if k not in own]
    shapes = [
        f"{k} {list(state[k].shape)} (needed {list(own[k].shape)})" for k in own if k in state and state[k].shape != own[k].shape
    ]
    problems = [
        f"{len(keys)} {what}: {some(keys)}"
        for keys, what in ((missing, "keys missing"), (leftover, "keys left over"), (shapes, "shapes differ"))
        if keys
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit the model: {'; '.join(problems)}")
    state = {key: value if own[key].is_floating_point() else _whole(value) for key, value in state.items()}
    _check_values(own, state, source)
    _check_tied(own, state, source)
    trains = {key for key, value in own.items() if isinstance(value, nn.Parameter) and value.requires_grad}
    tensors: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}
    for key, value in share_equal(state, apart=trains).items():
        if id(value) not in made:
            typed = value.to(dtype) if dtype is not None and value.is_floating_point() else value
            is_parameter = isinstance(own[key], nn.Parameter)
            made[id(value)] = nn.Parameter(typed, requires_grad=key in trains) if is_parameter else typed
        tensors[key] = made[id(value)]
    model.load_state_dict(tensors, assign=True)


def _fit_positions(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    for name, encoder in model.named_modules():
        given = state.get(f"{name}.vit.positions")
        if given is None or not isinstance(encoder, LensEncoder) or not isinstance(encoder.vit, FrozenViT):
            continue
        vit, count = encoder.vit, encoder.token_count
        covered = vit.prefix if vit.positions_cover_prefix else 0
        if count is not None and count != vit.patches and given.shape == (covered + count, vit.width):
            vit.fit_positions(count)


def _check_values(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Weights are real floating-point numbers, counters whole ones, all of them finite."""
    types = [
        f"{key} {str(state[key].dtype).removeprefix('torch.')}"
        for key, value in own.items()
        if state[key].dtype not in (FLOATS if value.is_floating_point() else WHOLE)
    ]
    if types:
        raise CheckpointError(f"{source}: {len(types)} weights of a type that none here has: {some(types)}")
    odd = [key for key in own if state[key].is_floating_point() and state[key].numel() and not _is_finite(state[key])]
    if odd:
        raise CheckpointError(f"{source}: {len(odd)} weights with values that are NaN or infinite: {some(odd)}")


def _whole(counter: Tensor) -> Tensor:
    """A counter (of a batch norm's batches) that somebody cast along with the weights, as a whole number again."""
    cast = counter.is_floating_point() and bool((counter == counter.round()).all())
    return counter.long() if cast else counter


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are; without a copy of them. NaN is both least and greatest where there is one."""
    least, most = torch.aminmax(tensor.detach())
    return math.isfinite(least) and math.isfinite(most)


def _check_tied(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    first: dict[int, str] = {}
    for key, value in own.items():
        twin = first.setdefault(id(value), key)
        if not torch.equal(state[twin], state[key]):
            raise CheckpointError(f"{source}: {twin} and {key} are one tied tensor, but their values differ")


def share_equal(state: Mapping[str, Tensor], *, apart: Container[str] = ()) -> dict[str, Tensor]:
    """The same state dict in which equal tensors at the same place of several encoders' ViTs are one object.

    Keys in `apart` (what trains) keep their own.
    """
    shared: dict[str, Tensor] = {}
    seen: dict[str, list[Tensor]] = {}
    for key, value in state.items():
        place = ".".join(key.split(".")[2:])
        if key in apart or not place.startswith("vit."):
            shared[key] = value
            continue
        twins = seen.setdefault(place, [])
        twin = next((t for t in twins if t is value or (t.shape == value.shape and torch.equal(t, value))), value)
        if twin is value:
            twins.append(value)
        shared[key] = twin
    return shared


def formula_state(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Fixed random weights for every key of `model`: the value depends on the key's name, its shape and `seed` alone."""
    state: dict[str, Tensor] = {}
    own = model.state_dict(keep_vars=True)
    names: dict[int, str] = {}
    for key, value in own.items():
        name = names.setdefault(id(value), key)
        generator = torch.Generator().manual_seed((zlib.crc32(name.encode()) + seed) % (1 << 31))
        shape = value.shape
        if not value.is_floating_point():
            state[key] = torch.zeros(shape, dtype=value.dtype)
            continue
        normal = torch.randn(shape, generator=generator)
        if key.endswith("running_var"):
            state[key] = 0.5 + 0.1 * normal.abs()
        elif len(shape) == 1 and key.endswith(".weight"):
            state[key] = 1 + 0.1 * normal
        elif len(shape) <= 1:
            state[key] = 0.02 * normal
        else:
            state[key] = normal / math.sqrt(math.prod(shape[1:]))
    return state


def save_native(model: nn.Module, config: Mapping[str, Any], folder: str | os.PathLike[str], *, card: str = "") -> Path:
    """Write `folder`/config.json and model.safetensors (README.md too when `card` has text); each appears whole or not at all.

    A tensor that several keys share is written once; the other names stand in the file's metadata.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[int, torch.Size], str] = {}
    for key, value in model.state_dict().items():
        twin = first.setdefault((value.data_ptr(), value.shape), key) if value.numel() else key
        if twin == key:
            tensors[key] = value.detach().cpu().contiguous()
        else:
            aliases[key] = twin
    save_tensors(target / "model.safetensors", tensors, metadata={"format": "pt", "aliases": json.dumps(aliases)})
    for name, text in (("config.json", json.dumps(dict(config), indent=1) + "\n"), ("README.md", card)):
        if text:
            with atomic(target / name) as part:
                part.write_text(text, encoding="utf-8")
    return target


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write a .safetensors file, whole or not at all, readable by whoever may read its folder; same content, same bytes."""
    from safetensors.torch import save_file

    with atomic(path) as part:
        part.touch()
        mode = part.stat().st_mode
        save_file({key: value.contiguous() for key, value in tensors.items()}, part, metadata=metadata)
        _sort_metadata(part)
        part.chmod(mode)  # the library lets its owner alone read it


def _sort_metadata(file: Path) -> None:
    """Put a safetensors file's metadata in order: the library writes them in another one each time."""
    with file.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:  # escaped otherwise than we do: the tensors stand behind, so the header keeps its place
            return
        stream.seek(8)
        stream.write(text.ljust(size))


def read_native(folder: Path, *, wanted: Iterable[str], known: Container[str]) -> dict[str, Tensor]:
    """The tensors of a native folder for the towers in `wanted`; those of other `known` towers are not read.

    Raises:
        CheckpointError: no weights there, a file that is truncated or not safetensors, or keys of no known tower.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{folder}: no model.safetensors beside config.json")
    towers = set(wanted)
    state: dict[str, Tensor] = {}
    try:
        with safe_open(str(file), framework="pt") as tensors:
            aliases = _aliases((tensors.metadata() or {}).get("aliases", "{}"), set(tensors.keys()))
            loaded: dict[str, Tensor] = {}
            names = [*tensors.keys(), *aliases]
            for key in names:
                if tower_of(key) in towers:
                    place = aliases.get(key, key)
                    if place not in loaded:
                        loaded[place] = tensors.get_tensor(place)
                    state[key] = loaded[place]
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
    strangers = [key for key in names if tower_of(key) not in known]
    if strangers:
        raise CheckpointError(f"{file}: {len(strangers)} keys of no tower in config.json: {some(strangers)}")
    return state


def _aliases(text: str, names: Container[str]) -> dict[str, str]:
    """Other name -> the name under which a tensor is stored.

    Raises:
        ValueError: anything else.
    """
    aliases = json.loads(text)
    if not isinstance(aliases, dict):
        raise ValueError(f"aliases must map names to names, found {aliases!r:.100}")
    for name, place in aliases.items():
        if not isinstance(place, str) or place not in names or name in names:
            raise ValueError(f"an alias {name!r:.100} of {place!r:.100}, which is no other tensor of the file")
    return aliases

"""What a reader process does with one file: find its sensor, read and preprocess it.

The sensors are imported with this module: later the process's memory is limited.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitlens.display.pictures import sample_picture
from vitlens.errors import InputError
from vitlens.modality import Modality, get_modality, guess_modality, importable_modalities
from vitlens.sources import Source, decoding

importable_modalities()
_built: dict[tuple[str, str], Modality] = {}


def ready(*_: Any) -> None:
    """Nothing but that this module is imported."""
    torch.set_num_threads(1)  # each reader has a core; the model has the others


def preprocessed(
    path: Path, source: Source, modality: str, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[np.ndarray, list[str]]:
    """The file `path` as the tensor that the sensor's ModEmbed takes, and what its reader remarks.

    Raises:
        InputError: whatever is wrong with the file, under its client's name.
    """
    sensor = _sensor(modality, settings)
    with warnings.catch_warnings(record=True) as told, _named(path, source):
        warnings.simplefilter("always")
        with decoding(source, sensor.accepts):
            sample = sensor.load({"source": path, **options})
            tensor = sensor.transform(sample).contiguous().numpy()
    return tensor, [*map(str, sample.info.get("remarks", ())), *(str(warning.message) for warning in told)]


def previewed(
    path: Path, source: Source, modality: str, settings: Mapping[str, Any], options: Mapping[str, Any], dark: bool
) -> dict[str, Any]:
    """What `vitlens info` tells of the file `path` and draws of it, for a light or a dark page; arrays as they are.

    Raises:
        InputError: whatever is wrong with the file, under its client's name.
    """
    torch.set_num_threads(1)
    sensor = _sensor(modality, settings)
    with warnings.catch_warnings(record=True) as told, _named(path, source), decoding(source, sensor.accepts):
        warnings.simplefilter("always")
        sample = sensor.inspect({"source": path, **options})
        facts = {**sensor.describe(sample), "unit": sensor.unit}
        explored = sensor.explore(sample)
        picture = sample_picture(sensor, sample, dark=dark)
        try:
            tensor = sensor.transform(sample)
            gets = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        except InputError as error:  # the file is what it is; only the model would want more of it
            gets = f"nothing: {error.found}"
    remarks = [*map(str, sample.info.get("remarks", ())), *(str(warning.message) for warning in told)]
    return {"facts": facts, "steps": sensor.steps(), "gets": gets, "picture": picture, "explore": explored, "remarks": remarks}


def guessed(path: Path, source: Source) -> str:
    """The sensor that claims the file.

    Raises:
        InputError: none, or several.
    """
    with _named(path, source), decoding(source, source.accepted):
        return guess_modality(path)


class _named:
    """Errors speak of a file under its client's name, not of where it lay here."""

    def __init__(self, path: Path, source: Source) -> None:
        self.path, self.source = path, source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, InputError):
            raise InputError(self.source.name, self._clean(error.found), self._clean(error.accepted)) from None

    def _clean(self, text: str) -> str:
        return text.replace(str(self.path), self.path.name).replace(f"{self.path.parent}/", "")


def _sensor(modality: str, settings: Mapping[str, Any]) -> Modality:
    key = (modality, repr(sorted(settings.items())))
    if key not in _built:
        _built[key] = get_modality(modality, **settings)
    return _built[key]

"""What a worker does with one file. The sensors are imported with this module: later its memory is limited."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path
from typing import Any

from vitlens.errors import InputError, MissingDependencyError
from vitlens.isolation import with_workers
from vitlens.modality import importable_modalities
from vitlens.sources import Source

SENSORS = {name: cls() for name, cls in importable_modalities().items()}


def read(path: Path, source: Source, modality: str, options: dict[str, Any]) -> tuple[str, str]:
    """Read and preprocess `path` by the sensor `modality`; the outcome, and a word of why."""
    sensor = SENSORS[modality]
    with warnings.catch_warnings(), with_workers():
        warnings.simplefilter("ignore")
        try:
            sensor.transform(sensor.read(path, **options))
        except (InputError, MissingDependencyError) as error:
            return "refused", str(error)[:300]
        except Exception:
            return "other", traceback.format_exc(limit=-2)[-600:]
    return "ok", ""

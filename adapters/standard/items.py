"""Items of sentence-transformers, MTEB and `datasets` as our readers take them: arrays with a rate, torchcodec's decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitlens.modalities.video_files import spread
from vitlens.model import ViTLens


def as_source(model: ViTLens, name: str, item: Any) -> Any:
    """What `model.encode({name: [...]})` takes for an item of modality `name`; others stay as they are."""
    if name == "audio":
        return _sound(item)
    if name == "video":
        sensor: Any = model.modality("video")
        return _film(item, sensor.frames)
    return item


def _sound(item: Any) -> Any:
    """{"array", "sampling_rate"} or an AudioDecoder -> samples in -1..1 and their rate, all channels."""
    if isinstance(item, Mapping) and "array" in item:
        return {"source": np.asarray(item["array"], np.float32), "rate": int(item["sampling_rate"])}
    if hasattr(item, "get_all_samples"):
        samples = item.get_all_samples()
        return {"source": samples.data.numpy(), "rate": int(samples.sample_rate)}
    return item


def _film(item: Any, wanted: int) -> Any:
    """{"array"}, a tensor [frames, 3, h, w] or a VideoDecoder, of which only the frames that are seen are decoded."""
    if isinstance(item, Mapping) and "array" in item:
        item = item["array"]
    if hasattr(item, "get_frames_at"):
        item = item.get_frames_at(indices=spread(len(item), wanted)).data
    if not hasattr(item, "ndim") or item.ndim != 4:
        return item
    frames = np.asarray(item)
    return np.moveaxis(frames, 1, -1) if frames.shape[1] == 3 != frames.shape[-1] else frames

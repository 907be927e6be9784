"""Where published scores come from, and a short way to list them."""

from __future__ import annotations

from collections.abc import Mapping

from vitlens.benchmarks.datasets.dataset import Published

ZOO = "ViT-Lens MODEL_ZOO.md and arXiv 2311.16081"
IMAGEBIND = "arXiv 2305.05665, as quoted in the tables of arXiv 2311.16081"
UNI3D = "Uni3D README.md and arXiv 2310.06773"
OPEN_CLIP = "open_clip, docs/openclip_results.csv"


def scores(
    split: str, metric: str, values: Mapping[str, float], *, source: str = ZOO, protocol: str = ""
) -> tuple[Published, ...]:
    """One row for each model in `values` (percent)."""
    return tuple(Published(model, metric, value, split, source, protocol) for model, value in values.items())

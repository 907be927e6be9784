"""README.md of a saved model: what people read, and before it the metadata by which the Hugging Face Hub finds and shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vitlens.cards import PublishedScore, all_cards
from vitlens.spec import ModelSpec

MARK = "<!-- written by vitlens -->"
"""Stands in every README.md of ours: one without it is somebody's own, and left as it is."""
LICENCES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "cc0-1.0", "unlicense"),
    *(f"cc-by-{kind}4.0" for kind in ("", "sa-", "nc-", "nd-", "nc-sa-", "nc-nd-")),
    *("openrail", "creativeml-openrail-m", "llama2", "llama3", "gemma", "unknown"),
}
"""Licences that the Hub knows by these names; any other is "other" with a name of its own."""
METRICS = {"top-1": "accuracy", "top-5": "top_5_accuracy", "mAP": "mean_average_precision"}


def readme(spec: ModelSpec, modalities: Sequence[str], called: str) -> str:
    """The card of a model that `vitlens.load(called)` loads; published scores where it is a model of the zoo, all of it."""
    known = all_cards().get(spec.name)
    whole = known is not None and known.spec.encoders == spec.encoders and known.spec.text == spec.text
    scores = known.scores if known is not None and whole else ()
    lines = [f"# {spec.name}", "", f"Licence: {spec.licence}", f"Space: {spec.space.name} ({spec.space.dim})"]
    lines += [f"Modalities: {', '.join(modalities)}", "", f'    model = vitlens.load("{called}")', ""]
    if scores:
        lines += ["Scores are those published for the model of this name; they were not measured on these files.", ""]
    return metadata(spec, scores, training_data=known.training_data if known else "") + "\n".join([*lines, MARK, ""])


def metadata(spec: ModelSpec, scores: Sequence[PublishedScore] = (), *, training_data: str = "") -> str:
    """The YAML block before a README.md: licence, library, tags, pipeline, base model, and scores as the Hub's model-index."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        **_licence(spec.licence),
        library_name="vitlens",
        pipeline_tag="feature-extraction",
        tags=["vitlens", "vit-lens", "multimodal-embeddings", *(name.replace("_", "-") for name in spec.modalities)],
        base_model=_base_model(spec.space.name),
        model_name=spec.name if scores else None,
        metrics=sorted({_metric(score.metric) for score in scores}) or None,
        eval_results=[_result(score, training_data) for score in scores] or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _licence(text: str) -> dict[str, Any]:
    name = text.partition(" (")[0].strip()
    if name.lower() in LICENCES:
        return {"license": name.lower()}
    return {"license": "other", "license_name": _slug(name) or "unknown"}


def _base_model(space: str) -> str | None:
    """The Hub repository of the CLIP whose space a model's embeddings are in, where open_clip knows it."""
    parts = space.split("/")
    if len(parts) != 3 or parts[0] != "open_clip":
        return None
    import open_clip

    place: str = open_clip.get_pretrained_cfg(parts[1], parts[2]).get("hf_hub", "")
    return place.rpartition("/")[0] or None


def _result(score: PublishedScore, training_data: str) -> Any:
    from huggingface_hub import EvalResult

    told = {"protocol": score.protocol, "training_data": score.training_data or training_data}
    paper = re.search(r"arXiv (\d{4}\.\d{4,5})", score.source)
    return EvalResult(
        task_type="retrieval" if score.metric.startswith("R@") else "zero-shot-classification",
        dataset_type=_slug(score.dataset),
        dataset_name=score.dataset,
        metric_type=_metric(score.metric),
        metric_name=score.metric,
        metric_value=score.value,
        metric_args={name: text for name, text in told.items() if text} or None,
        source_name=score.source if paper else None,
        source_url=f"https://arxiv.org/abs/{paper[1]}" if paper else None,
    )


def _metric(name: str) -> str:
    return METRICS.get(name, _slug(name.replace("R@", "recall at ")).replace("-", "_"))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")

"""ViTLens: several sensors' encoders in one space - encode, compare, classify, compose."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from vitlens import checks
from vitlens.batches import Workers, batches, distinct_views, halving, same_shape
from vitlens.checkpoint import fill_model, formula_state, save_native
from vitlens.devices import chosen_device
from vitlens.display.progress import ProgressBar
from vitlens.encoder import LensEncoder, build_encoder, evaluating
from vitlens.errors import InputError, ModalityError, OptionError, SpaceError, VitlensError
from vitlens.hub import upload
from vitlens.hub_card import MARK, readme
from vitlens.modality import Modality
from vitlens.precision import AUTO, Arithmetic, Probe, check_dtype, probe, torch_dtype
from vitlens.soundtrack import checked_share, mix_sound
from vitlens.sources import name_of
from vitlens.space import Embeddings
from vitlens.spec import ModelSpec
from vitlens.towers import build_text_tower
from vitlens.words import check_labels, unknown_words
from vitlens.zeroshot import DEFAULT_TEMPLATES, Classification, LatelyAsked, class_prompts, class_vectors, classify_embeddings
from vitlens.zoo import Pretrained, find_pretrained


@dataclass(frozen=True)
class Encoded:
    """One item of a stream: its position, and its embedding [E] or what was wrong with it; and what its reader remarks."""

    index: int
    embedding: Tensor | None
    error: InputError | None = None
    remarks: tuple[str, ...] = ()


class ViTLens(nn.Module):
    """Encoders of several sensors and the CLIP text tower, all giving embeddings of one space.

    Build it with `vitlens.load` or `ViTLens.from_spec`.
    """

    def __init__(self, *, spec: ModelSpec, encoders: Mapping[str, LensEncoder], text: nn.Module | None) -> None:
        super().__init__()
        self.spec = spec
        self.space = spec.space
        self.logit_scale = spec.logit_scale
        self._probes: dict[tuple[str, str], Probe] = {}
        self._classes = LatelyAsked()
        self.encoders = nn.ModuleDict(encoders)
        self.text = text
        self._modalities = {name: spec.modality(name) for name in spec.modalities}

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> ViTLens:
        """Build the model `spec` describes with the libraries' initial weights (none under `torch.device("meta")`)."""
        encoders = {encoder.modality: build_encoder(encoder) for encoder in spec.encoders}
        text = None if spec.text is None else build_text_tower(spec.text)
        widths = {name: encoder.vit.embed_dim for name, encoder in encoders.items()}
        widths |= {"text": text.embed_dim} if text is not None else {}
        wrong = {name: width for name, width in widths.items() if width != spec.space.dim}
        if wrong:
            raise OptionError(f"model {spec.name}: space {spec.space.name} has width {spec.space.dim}, but towers give {wrong}")
        return cls(spec=spec, encoders=encoders, text=text).eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        modalities: Iterable[str] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        weights: str | os.PathLike[str] | None = None,
        compile: bool = False,
    ) -> ViTLens:
        """Load a zoo name, a native folder, or a Hub repository "owner/name" in the native format. `vitlens.load` is this.

        Only the towers that `modalities` need are built. `device` None takes CUDA, then Apple's MPS, then the CPU; `dtype` is
        the weights' own. `weights` is a folder that holds the files the card names (default: the folder in the environment
        variable VITLENS_WEIGHTS, then the Hugging Face cache, then the Hub), or for a card with one file that file itself.
        `compile` gives every tower to `torch.compile`, which compiles at the first batch; saved files stay as they are.

        Raises:
            OptionError: a device that is not there, or a dtype that is not floating-point.
            ModelError: unknown name, or weights that are neither on this machine nor to be had; says what to put where.
            ModalityError: a modality the model does not have.
            CheckpointError: weights that do not fit, key by key.
        """
        target = chosen_device(device)
        if not dtype.is_floating_point:
            raise OptionError(f"dtype must be a floating-point type, found {dtype}")
        model = cls.from_state(find_pretrained(name, modalities=modalities, weights=weights), dtype=dtype).to(target)
        if compile:
            for tower in [*model.encoders.values(), *([model.text] if model.text is not None else [])]:
                tower.compile()
        return model

    @classmethod
    def from_state(cls, pretrained: Pretrained, *, dtype: torch.dtype | None = None) -> ViTLens:
        """Build the model of a spec and give it exactly its tensors, on the CPU; `dtype` None leaves them as they are.

        Raises:
            CheckpointError: tensors that do not fit, key by key.
            OptionError: a configuration that makes no model.
        """
        try:
            with torch.device("meta"):
                model = cls.from_spec(pretrained.spec)
        except (VitlensError, ImportError):
            raise
        except Exception as error:  # numbers of a configuration that a library or torch stumbles over
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise OptionError(f"model {pretrained.spec.name}: cannot be built as its configuration says ({found})") from error
        state = formula_state(model) if pretrained.state is None else pretrained.state
        fill_model(model, state, source=pretrained.source, dtype=dtype)
        return model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write config.json, model.safetensors and a README.md to `folder`; `from_pretrained(folder)` gives the model back.

        A README.md that somebody else wrote is left as it is.
        """
        return self._save(Path(folder), Path(folder).name)

    def _save(self, folder: Path, called: str) -> Path:
        there = folder / "README.md"
        ours = not there.exists() or MARK in there.read_text(encoding="utf-8", errors="replace")
        spec = replace(self.spec, logit_scale=self.logit_scale)
        return save_native(self, spec.to_dict(), folder, card=readme(spec, self.modalities, called) if ours else "")

    def push_to_hub(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the Hugging Face Hub repository `repo` ("owner/name"), made if need be; returns its address.

        A README.md there that somebody else wrote is left as it is. `token` None takes the stored one.

        Raises:
            ModelError: the Hub cannot be reached, or does not let you; says what to do.
        """
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), repo)
            return upload(Path(folder), repo, private=private, token=token, mark=MARK)

    @property
    def modalities(self) -> list[str]:
        """Names of what this model encodes."""
        return list(self._modalities)

    def supports(self, *modalities: str) -> bool:
        """Whether all of `modalities` can be encoded."""
        return all(name in self._modalities for name in modalities)

    def modality(self, name: str) -> Modality:
        """The modality `name` with this model's preprocessing options.

        Raises:
            ModalityError: the model has no such modality.
        """
        if name not in self._modalities:
            raise ModalityError(f"model {self.spec.name} has no modality {name!r}; it has {', '.join(self.modalities)}")
        return self._modalities[name]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def tower(self, modality: str) -> nn.Module:
        """The LensEncoder (or text tower) that encodes `modality`."""
        shares = self.modality(modality).shares
        name = shares if shares and modality not in self.encoders else modality
        return cast(nn.Module, self.text if name == "text" else self.encoders[name])

    def forward(self, inputs: Mapping[str, Tensor], *, normalize: bool = False) -> dict[str, Tensor]:
        """Preprocessed batches {modality: [b, ...]} -> embeddings {modality: [b, E]} on the same device, with gradients."""
        out = {name: self.tower(name)(x) for name, x in inputs.items()}
        return {name: F.normalize(x, dim=-1) if normalize else x for name, x in out.items()}

    def encode(
        self,
        inputs: Mapping[str, Sequence[Any]],
        *,
        batch_size: int = 32,
        num_workers: Workers = "auto",
        dtype: Arithmetic = None,
        normalize: bool = True,
        on_error: Literal["raise", "skip"] = "raise",
        read_options: Mapping[str, Mapping[str, Any]] | None = None,
        sound: float | None = None,
        progress: bool = False,
    ) -> Embeddings:
        """Sensor files, arrays or Samples -> embeddings [n, E] per modality, in input order.

        `dtype` (bfloat16, float16, or "auto": bfloat16 where `probe` says that it pays) is the arithmetic of this call, the
        result is float32. `num_workers` processes read while the model computes; "auto" takes some where there are many items.
        `read_options[modality]` goes to the reader of every item; an item {"source": ..., option: value} brings its own. Words
        that a small text tower does not know are named in a warning. `sound` (0 to 1) composes each video with its own sound
        track: 1 - sound of its pictures, sound of what is heard, each normalised before and their sum again.

        Raises:
            InputError: an item that cannot be read, unless `on_error="skip"`.
            ModalityError: a modality the model does not have.
        """
        options = read_options or {}
        self._check(inputs, options, on_error)
        share = None if sound is None else checked_share(sound, inputs, normalize)
        heard = None if share is None else self.modality("audio")
        if "text" in inputs and (words := unknown_words(self.modality("text"), inputs["text"])):
            warnings.warn(words, stacklevel=2)
        result = Embeddings(self.space)
        settings: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "dtype": dtype, "normalize": normalize}
        with ProgressBar(show=progress) as bar:
            for name, items in inputs.items():
                rows: list[Tensor] = []
                result.errors[name], result.kept[name], result.remarks[name] = [], [], []
                for item in self.stream(name, items, read_options=options.get(name), **settings):
                    bar.update(f"encoding {name}", item.index + 1, len(items))
                    result.remarks[name] += [(item.index, remark) for remark in item.remarks]
                    if item.embedding is not None:
                        rows.append(item.embedding)
                        result.kept[name].append(item.index)
                    elif on_error == "raise":
                        raise cast(InputError, item.error)
                    else:
                        result.errors[name].append((item.index, cast(InputError, item.error)))
                result[name] = torch.stack(rows) if rows else torch.empty(0, self.space.dim)
                result[name].space = self.space  # type: ignore[attr-defined]
        if share is not None and heard is not None:
            mix_sound(
                result,
                inputs["video"],
                share,
                audio=heard,
                options=options.get("audio", {}),
                embed=lambda sample: self.embed("audio", [heard.transform(sample)], dtype)[0],
                compose=lambda rows, weights: self.compose(rows, weights=weights),
            )
        return result

    def _check(self, inputs: Any, options: Mapping[str, Any], on_error: str) -> None:
        if not isinstance(inputs, Mapping):
            raise OptionError(f'inputs must be a dict such as {{"audio": [...]}}, found {type(inputs).__name__}')
        checks.one_of("on_error", on_error, ("raise", "skip"))
        for name in [*inputs, *options]:
            self.modality(name)
        for name, items in inputs.items():
            if isinstance(items, str | bytes | os.PathLike | Mapping | Set) or not hasattr(items, "__len__"):
                raise OptionError(f"inputs[{name!r}] must be a list of items, found {name_of(items)}: put it in a list")

    def stream(
        self,
        modality: str,
        items: Sequence[Any],
        *,
        batch_size: int = 32,
        num_workers: Workers = 0,
        dtype: Arithmetic = None,
        normalize: bool = True,
        read_options: Mapping[str, Any] | None = None,
    ) -> Iterator[Encoded]:
        """Encode items one batch after the other, yielding one `Encoded` per item in input order; nothing is kept.

        An item that cannot be read is yielded with its InputError; the stream goes on.
        """
        check_dtype(dtype, next(self.parameters()).dtype)
        sensor = self.modality(modality)
        items = items if isinstance(items, Dataset) else list(items)  # a data set's items are opened when their batch is
        for batch in batches(sensor, items, batch_size=batch_size, num_workers=num_workers, options=read_options):
            embeddings = self.embed(modality, batch.items, dtype)
            if normalize:
                embeddings = F.normalize(embeddings, dim=-1)
            rows = dict(zip(batch.positions, embeddings, strict=True))
            for index in sorted([*rows, *batch.errors]):
                yield Encoded(index, rows.get(index), batch.errors.get(index), batch.remarks.get(index, ()))

    def tokens(
        self, modality: str, items: Sequence[Any], *, batch_size: int = 32, read_options: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Lens tokens [n, m, D] of the items: the splice point, what the ViT takes after its patch embedding.

        Raises:
            InputError: an item that cannot be read.
            ModalityError: a modality without lens tokens (text).
        """
        encoder = self.tower(modality)
        if not isinstance(encoder, LensEncoder):
            raise ModalityError(f"{modality} has no lens tokens: it does not go through the ViT")
        rows: dict[int, Tensor] = {}
        items = list(items)
        for batch in batches(self.modality(modality), items, batch_size=batch_size, options=read_options):
            if batch.errors:
                raise next(iter(batch.errors.values()))
            for places in same_shape(batch.items):
                with torch.inference_mode(), evaluating(encoder):
                    out = encoder.tokens(torch.stack([batch.items[i] for i in places]).to(self.device)).float().cpu()
                rows |= {batch.positions[i]: row for i, row in zip(places, out, strict=True)}
        return torch.stack([rows[i] for i in range(len(items))]) if rows else torch.empty(0, 0, encoder.vit.width)

    def embed(self, modality: str, batch: Sequence[Tensor], dtype: Arithmetic = None) -> Tensor:
        """Preprocessed items -> embeddings [b, E] as the tower gives them, float32 on the CPU, in order.

        Items may have several shapes; a batch too large for the device is halved.
        """
        if not batch:
            return torch.empty(0, self.space.dim)
        device = self.device
        if dtype == AUTO:
            dtype = torch_dtype(self.probe(modality).precision)
        low = dtype not in (None, torch.float32, next(self.parameters()).dtype)
        context = torch.autocast(device.type, dtype=cast(torch.dtype, dtype)) if low else nullcontext()
        out = torch.empty(len(batch), self.space.dim)
        tower = self.tower(modality)
        views = getattr(getattr(tower, "embed", None), "input_ndim", None)
        items = [distinct_views(x, views) for x in batch]
        with torch.inference_mode(), evaluating(tower), context:
            for places in same_shape(items):
                out[places] = halving(lambda x: tower(x.to(device)).float().cpu(), torch.stack([items[i] for i in places]))
        return out

    def probe(self, modality: str) -> Probe:
        """What `dtype="auto"` computes a modality in on this device: tried once, on the modality's own examples."""
        if next(self.parameters()).dtype != torch.float32:
            return Probe("fp32", 1.0)
        key = modality, str(self.device)
        if key not in self._probes:
            sensor, tower = self.modality(modality), self.tower(modality)
            x = torch.stack([sensor.transform(sensor.example(seed)) for seed in range(2)])
            with evaluating(tower):
                self._probes[key] = probe(tower, x, self.device)
        return self._probes[key]

    def similarity(self, a: Tensor | Embeddings, b: Tensor | Embeddings) -> Tensor:
        """Cosine similarities [n, m] of two sets of embeddings [n, E] and [m, E] (or one vector each).

        The space is checked where it is known: of `encode`'s tensors as they come, and of `Embeddings` of a single modality.

        Raises:
            SpaceError: embeddings of another space, or of another width than this model's.
        """
        left, right = (F.normalize(self._vectors(x), dim=-1) for x in (a, b))
        return left @ right.T

    def _vectors(self, x: Tensor | Embeddings) -> Tensor:
        space = getattr(x, "space", self.space)
        if space != self.space:
            raise SpaceError(
                f"embeddings of space {space.name} ({space.dim}), this model's is {self.space.name} ({self.space.dim})"
            )
        if isinstance(x, Embeddings):
            if len(x) != 1:
                raise OptionError(f"Embeddings hold {', '.join(x) or 'nothing'}: choose one, such as result['audio']")
            x = next(iter(x.values()))
        vectors = torch.atleast_2d(torch.as_tensor(x)).float()
        if vectors.ndim != 2 or vectors.shape[1] != self.space.dim:
            raise SpaceError(f"embeddings of shape {list(vectors.shape)}: space {self.space.name} has width {self.space.dim}")
        return vectors

    def class_vectors(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        batch_size: int = 256,
        embed: Callable[[list[str]], Tensor] | None = None,
    ) -> Tensor:
        """One vector per class [c, E], normalised: the mean of its prompts, one for each template.

        Those that were asked for lately are kept. `embed` gives the prompts' embeddings [n, E] in the place of the text tower
        (`store.prompts.stored_prompts` looks on disk).

        Raises:
            ModalityError: the model has no text tower.
            OptionError: labels or templates that cannot be used; labels that are the same to the text tower.
        """

        prompts = class_prompts(labels, templates)

        def checked(lines: list[str]) -> Tensor:
            check_labels(self.modality("text"), prompts)
            return embed(lines) if embed else self.encode({"text": lines}, batch_size=batch_size)["text"]

        make = partial(class_vectors, checked, labels, templates)
        return self._classes.get(self.tower("text"), tuple(map(tuple, prompts.values())), make)

    def classify(
        self,
        modality: str,
        items: Sequence[Any],
        labels: Sequence[str],
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        batch_size: int = 32,
        num_workers: Workers = "auto",
        dtype: Arithmetic = None,
        read_options: Mapping[str, Any] | None = None,
        sound: float | None = None,
    ) -> Classification:
        """Zero-shot classification of items against class names, each put into every prompt template; `sound` as in `encode`.

        Raises:
            InputError, ModalityError: as `encode`; the model needs its text tower.
            OptionError: labels or templates that cannot be used.
        """
        vectors = self.class_vectors(labels, templates=templates)
        options = {} if read_options is None else {modality: read_options}
        embeddings = self.encode(
            {modality: items}, batch_size=batch_size, num_workers=num_workers, dtype=dtype, read_options=options, sound=sound
        )[modality]
        return classify_embeddings(embeddings, labels, vectors, logit_scale=self.logit_scale)

    def compose(self, embeddings: Sequence[Tensor], *, weights: Sequence[float] | None = None) -> Tensor:
        """Add embeddings ([E] or [n, E] each) with weights and normalise: one query made of several.

        Raises:
            OptionError: nothing to add, another number of weights, or weights that are not finite or cancel out.
            SpaceError: another width than this model's.
        """
        if not len(embeddings):
            raise OptionError("compose: at least one embedding is needed")
        factors = [1.0] * len(embeddings) if weights is None else [float(w) for w in weights]
        if len(factors) != len(embeddings) or not all(math.isfinite(w) for w in factors):
            raise OptionError(f"compose: {len(embeddings)} finite weights are needed, found {list(weights or [])}")
        flat = all(isinstance(e, Tensor) and e.ndim == 1 for e in embeddings)
        total = cast(Tensor, sum(w * F.normalize(self._vectors(e), dim=-1) for w, e in zip(factors, embeddings, strict=True)))
        if not bool((total.norm(dim=-1) >= 1e-6).all()):  # also where a value is NaN
            raise OptionError("compose: the weighted embeddings cancel out, or hold values that are not finite")
        total = F.normalize(total, dim=-1)
        return total[0] if flat else total


load = ViTLens.from_pretrained

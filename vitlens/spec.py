"""ModelSpec: everything that builds a ViTLens, as it stands in config.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast

from vitlens import checks
from vitlens.encoder import EncoderSpec
from vitlens.errors import ModalityError, OptionError
from vitlens.modality import Modality, get_modality, modalities_sharing, modality_class
from vitlens.space import EmbeddingSpace
from vitlens.vit import ViTSpec

CONFIG_FORMAT = 1
LARGEST_SCALE = 1e6
"""A temperature of so much makes every softmax a choice; CLIP's is 100."""


@dataclass(frozen=True)
class ModelSpec:
    """Everything that builds a ViTLens; what config.json holds."""

    name: str
    space: EmbeddingSpace
    encoders: tuple[EncoderSpec, ...]
    text: ViTSpec | None = None
    text_options: Mapping[str, Any] = field(default_factory=dict)
    logit_scale: float = 100.0
    licence: str = "unknown"

    def __post_init__(self) -> None:
        checks.text("model spec: name", self.name)
        checks.text("model spec: licence", self.licence)
        checks.mapping("model spec: text_options", self.text_options)
        checks.number("model spec: logit_scale", self.logit_scale, above=0, most=LARGEST_SCALE)
        names = [encoder.modality for encoder in self.encoders]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise OptionError(f"model {self.name}: more than one encoder for {', '.join(sorted(repeated))}")

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON types."""
        return {
            "format": CONFIG_FORMAT,
            "name": self.name,
            "licence": self.licence,
            "space": asdict(self.space),
            "logit_scale": self.logit_scale,
            "text": None if self.text is None else self.text.to_dict(),
            "text_options": dict(self.text_options),
            "encoders": [encoder.to_dict() for encoder in self.encoders],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_dict`.

        Raises:
            OptionError: another format, or a field that is missing or not known.
        """
        if not isinstance(values, Mapping) or values.get("format") != CONFIG_FORMAT:
            values = values if isinstance(values, Mapping) else {}
            raise OptionError(f"model spec: format {values.get('format')!r}, this version reads format {CONFIG_FORMAT}")
        checks.known("model spec: unknown field", values, ["format", *(known.name for known in fields(cls))])
        try:
            return cls(
                name=values["name"],
                space=EmbeddingSpace(**values["space"]),
                encoders=tuple(map(EncoderSpec.from_dict, checks.listed("model spec: encoders", values["encoders"]))),
                text=None if values["text"] is None else ViTSpec(**values["text"]),
                text_options=values.get("text_options", {}),
                logit_scale=values["logit_scale"],
                licence=values.get("licence", "unknown"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptionError(f"model spec: {type(error).__name__}: {error}") from error

    @property
    def modalities(self) -> list[str]:
        """Every modality this model can encode, those that share an encoder (video: the image's) included."""
        own = [encoder.modality for encoder in self.encoders] + (["text"] if self.text else [])
        return own + modalities_sharing(own)

    def modality(self, name: str) -> Modality:
        """The modality `name` with the options this model's encoder was built for.

        One that shares an encoder has those of its options that it has too: a video's frames are preprocessed like images.

        Raises:
            ModalityError: the model has no such modality.
            OptionError: options that the modality does not have.
        """
        encoder = next((encoder for encoder in self.encoders if encoder.modality == name), None)
        if encoder is not None:
            return get_modality(name, **encoder.options)
        if name == "text" and self.text is not None:
            return get_modality(name, **self.text_options)
        if name not in self.modalities:
            raise ModalityError(f"model {self.name} has no modality {name!r}; it has {', '.join(self.modalities)}")
        cls = modality_class(name)
        known = cls().options()
        shared = self.modality(cast(str, cls.shares)).options()
        return get_modality(name, **{key: value for key, value in shared.items() if key in known})

    def restricted(self, modalities: Iterable[str] | None) -> ModelSpec:
        """The spec with only the towers that `modalities` need; None keeps all.

        Raises:
            ModalityError: one that this model does not have.
        """
        if modalities is None:
            return self
        wanted = [modalities] if isinstance(modalities, str) else list(modalities)
        if not wanted:
            raise ModalityError(f"no modality asked for; model {self.name} has {', '.join(self.modalities)}")
        for name in wanted:
            if name not in self.modalities:
                raise ModalityError(f"model {self.name} has no modality {name!r}; it has {', '.join(self.modalities)}")
        own = [encoder.modality for encoder in self.encoders]
        needed = {name if name in own or name == "text" else modality_class(name).shares for name in wanted}
        encoders = tuple(encoder for encoder in self.encoders if encoder.modality in needed)
        return replace(self, encoders=encoders, text=self.text if "text" in needed else None)

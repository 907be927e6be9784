"""Modality: one sensor's unit, reader, preprocessing and ModEmbed; and the registry through which the core finds them.

A modality is registered by the decorator `register_modality` and found through the entry-point group `vitlens.modalities`:

    [project.entry-points."vitlens.modalities"]
    radar = "my_package.radar:Radar"
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from vitlens.checks import known
from vitlens.errors import InputError, ModalityError, OptionError, UnclaimedError, VitlensError
from vitlens.sources import is_path, name_of, suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.lens_config import LensConfig
    from vitlens.vit import ViT

GROUP = "vitlens.modalities"


@dataclass(frozen=True)
class Sample:
    """What a reader returns: the measurement in the modality's unit, the name of its source, and what else is known of it."""

    data: Any
    source: str
    info: Mapping[str, Any] = field(default_factory=dict)


class Modality(ABC):
    """One kind of sensor. Subclasses are usually frozen dataclasses whose fields are the preprocessing's options.

    Evaluation is a pure function of the input; augmentation (`train=True`) draws from torch's global generator only.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    """Unit, dtype and shape of `Sample.data`, e.g. "metres, float32 [h, w]"."""
    accepts: ClassVar[str]
    """What `read` takes, in words; the last part of every InputError."""
    extensions: ClassVar[tuple[str, ...]] = ()
    """File types without their dot."""
    tower: ClassVar[Literal["vision", "text"]] = "vision"
    """"vision": ModEmbed -> Lens -> FrozenViT. "text": the CLIP text tower, without ModEmbed or lens."""
    shares: ClassVar[str | None] = None
    """Another modality whose encoder this one goes through (video frames go through the image's)."""
    default_lens: ClassVar[LensConfig | None] = None
    """The lens a new encoder gets when none is named; None is the identity lens."""
    token_width: ClassVar[int | None] = None
    """Width of the ModEmbed's tokens in a new encoder; None is the ViT's own width."""

    @abstractmethod
    def read(self, source: Any, *args: Any, **options: Any) -> Sample:  # type checkers let overrides name their own options
        """Read a path, a binary file object or an array (with its rate or unit) into the modality's unit.

        Raises:
            InputError: whatever is wrong with the input, naming it.
        """

    @abstractmethod
    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Preprocess to a tensor of a fixed shape; with several views (clips, frames) they come first."""

    @abstractmethod
    def example(self, seed: int = 0) -> Sample:
        """A small synthetic sample, the same for the same seed; used by tests, the demo and `vitlens doctor`."""

    @abstractmethod
    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write `sample` to `folder` in a usual file format of this sensor, such that `read` gives it back; return the path."""

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """A ModEmbed: tensor [b, ...] -> tokens [b, n, width], positions included."""
        raise ModalityError(f"{self.name} has no ModEmbed: it is encoded by the {self.tower} tower")

    def describe(self, sample: Sample) -> dict[str, str]:
        """What a person wants to know of a sample, as label -> text with units."""
        shape = getattr(sample.data, "shape", None)
        return {"shape": str(list(shape)) if shape is not None else type(sample.data).__name__}

    def unknown(self, sample: Sample) -> dict[str, list[str]]:
        """What of a sample this modality has no token for, each with the nearest that it knows: words of a text."""
        return {}

    def steps(self) -> list[str]:
        """The preprocessing in words, in order."""
        return []

    def draw(self, sample: Sample, axes: Axes) -> None:
        """Draw the sample as a person would look at it on matplotlib axes."""
        import numpy as np

        axes.imshow(np.atleast_2d(np.asarray(sample.data, dtype=float)), aspect="auto", interpolation="nearest")

    def explore(self, sample: Sample) -> dict[str, Any]:
        """What a page lets a person turn or point at beside `draw`'s picture; of these names, those that fit.

        `points` float32 [n, 3], z up, within -1..1, with `colours` uint8 [n, 3]; `waveform` float32 [k, 2], the lowest and the
        highest value of k stretches, over `seconds`; `electrodes`, their names, at `places` float32 [n, 2], seen from above on a
        head of radius 1 with its nose up.
        """
        return {}

    def claims(self, path: Path) -> float:
        """How surely a file is of this modality: 0 not at all, 1 by its extension alone, 2 by its content."""
        return 1.0 if suffix_of(path) in self.extensions else 0.0

    def companions(self, path: Path) -> list[Path]:
        """Other files that belong to the file `path` and that reading it opens: a header's data, a scene's buffers."""
        return []

    def load(self, item: Any, **defaults: Any) -> Sample:
        """Turn one item of a user's list into a Sample.

        An item is a Sample, a source (`read(source, **defaults)`), or a mapping {"source": ..., option: value} whose options
        win over `defaults`.
        """
        if isinstance(item, Sample):
            return item
        if isinstance(item, Mapping):
            if "source" not in item:
                raise InputError(f"<item with {', '.join(map(str, item)) or 'no keys'}>", "no 'source' in it", self.accepts)
            defaults = {**defaults, **{key: value for key, value in item.items() if key != "source"}}
            item = item["source"]
        allowed = self.read_options()
        known(f"{self.name}, {name_of(item)}: unknown read option", defaults, allowed)
        if item is None or (isinstance(item, str) and not item and self.tower != "text"):
            raise InputError(repr(item), "nothing to read", self.accepts)
        return self.read(item, **defaults)

    def windows(self, source: Any, how: Any, **options: Any) -> dict[str, dict[str, Any]]:
        """The windows that a long recording is cut into: what each is called, and the read options that give it.

        Raises:
            OptionError: this modality has no windows.
        """
        raise OptionError(f"{self.name} has no windows")

    def inspect(self, item: Any, **defaults: Any) -> Sample:
        """`load` for a person who looks at a file: what a model needs of it does not matter, only what it is."""
        return self.load(item, **defaults)

    @classmethod
    def read_options(cls) -> list[str]:
        """Names of the keyword options `read` takes (unit, rate, camera ...)."""
        parameters = inspect.signature(cls.read).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    def options(self) -> dict[str, Any]:
        """The constructor options that rebuild this modality: `type(m)(**m.options())`; JSON types only."""
        options: dict[str, Any] = dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}
        return {name: value.item() if hasattr(value, "item") else value for name, value in options.items()}


M = TypeVar("M", bound=type[Modality])
_registered: dict[str, type[Modality]] = {}


def register_modality(cls: M) -> M:
    """Class decorator: make a Modality known under its `name`.

    Raises:
        ModalityError: the class has no name, or another class took it; both owners are named.
    """
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise ModalityError(f"{cls.__qualname__}: name must be a lower-case identifier, found {name!r}")
    point, holder = _entry_points().get(name), _registered.get(name)
    owners = {_owner(cls)} | ({point.value.replace(":", ".")} if point else set()) | ({_owner(holder)} if holder else set())
    if len(owners) > 1:
        others = " and ".join(sorted(owners - {_owner(cls)}))
        raise ModalityError(f"modality {name!r} is registered twice: by {others} and by {_owner(cls)}")
    _registered[name] = cls
    return cls


def _owner(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@cache
def _entry_points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise ModalityError(f"modality {point.name!r} is offered twice: by {other.value} and by {point.value}")
        found[point.name] = point
    return found


def list_modalities() -> list[str]:
    """Names of all modalities, installed or registered, sorted."""
    return sorted({*_entry_points(), *_registered})


def modality_class(name: str) -> type[Modality]:
    """The class registered under `name`, imported on first use.

    Raises:
        ModalityError: no such modality (the known ones are listed), its module fails, or its entry point names something else.
    """
    if name not in _registered:
        point = _entry_points().get(name)
        if point is None:
            known_here = ", ".join(list_modalities()) or "none: is vitlens installed?"
            raise ModalityError(f"unknown modality {name!r}; known: {known_here}; others come with packages that register them")
        try:
            cls = point.load()
        except VitlensError:
            raise
        except Exception as error:  # a third party's module may raise anything
            found = " ".join(f"{type(error).__name__}: {error}".split())
            raise ModalityError(f"modality {name!r} cannot be imported from {point.value}: {found}") from error
        if not (isinstance(cls, type) and issubclass(cls, Modality)):
            raise ModalityError(f"entry point {name!r} ({point.value}) gives no Modality class")
        if getattr(cls, "name", None) != name:
            raise ModalityError(f"entry point {name!r} ({point.value}) gives a modality named {getattr(cls, 'name', None)!r}")
        register_modality(cls)
    return _registered[name]


def importable_modalities() -> dict[str, type[Modality]]:
    """All modality classes; a plugin that cannot be imported is left out with a warning: it must not spoil the others."""
    found: dict[str, type[Modality]] = {}
    for name in list_modalities():
        try:
            found[name] = modality_class(name)
        except Exception as error:
            why = (isinstance(error, ModalityError) and error.__cause__) or error
            warnings.warn(f"modality {name!r} is left out, it cannot be imported: {why}", stacklevel=3)
    return found


def modalities_sharing(encoders: Collection[str]) -> list[str]:
    """Modalities that go through the encoder of one in `encoders` (video frames through the image's)."""
    return [name for name, cls in importable_modalities().items() if name not in encoders and cls.shares in encoders]


def get_modality(name: str, **options: Any) -> Modality:
    """The modality `name`, built with `options`.

    Raises:
        ModalityError: unknown name.
        OptionError: an option the modality does not have.
    """
    cls = modality_class(name)
    known(f"{name}: unknown option", options, inspect.signature(cls).parameters)
    try:
        return cls(**options)
    except VitlensError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise OptionError(f"{name}: options that make no sense: {options!r:.200} ({error})") from error


@cache
def _plain(cls: type[Modality]) -> Modality:
    """A modality as it is without options; many files are asked of the same one."""
    return cls()


def guess_modality(path: Path | str) -> str:
    """The modality that claims a file most surely.

    Raises:
        InputError: no modality, or more than one, claims it.
    """
    if not is_path(path) or not Path(path).is_file():
        raise InputError(name_of(path), "no such file", "a file of a known modality")
    file = Path(path)
    claims: dict[str, float] = {}
    for name, cls in importable_modalities().items():
        try:
            claims[name] = _plain(cls).claims(file)
        except Exception as error:
            warnings.warn(f"modality {name!r} is left out, it cannot look at {path}: {error}", stacklevel=2)
    best = max(claims.values(), default=0.0)
    names = [name for name, claim in claims.items() if claim == best]
    if best <= 0:
        raise UnclaimedError(name_of(path), f"no modality reads .{suffix_of(path)} files", "; ".join(list_modalities()))
    if len(names) > 1:
        raise InputError(name_of(path), f"may be {' or '.join(names)}", "say which modality it is")
    return names[0]

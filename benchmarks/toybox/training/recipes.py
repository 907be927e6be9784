"""The numbers of the Toybox's two trainings - of CLIP and lenses, of hosts and painter - and what comes of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from vitlens.benchmarks.toybox.demo.evaluate import HELD_OUT, Results
from vitlens.benchmarks.toybox.training.clip import ClipRecipe
from vitlens.benchmarks.toybox.training.host import HostKind, HostRecipe
from vitlens.benchmarks.toybox.training.lenses import ABLATIONS, EPOCHS, LENSES, OBJECTS
from vitlens.benchmarks.toybox.training.painter import PainterRecipe
from vitlens.benchmarks.toybox.training.seed_networks import SeedRecipe
from vitlens.checks import known, one_of, whole
from vitlens.errors import OptionError
from vitlens.model import ViTLens


@dataclass(frozen=True)
class ToyboxRecipe:
    """Numbers of the whole training."""

    clip: ClipRecipe = field(default_factory=ClipRecipe)
    sensors: tuple[str, ...] = tuple(LENSES)
    objects: int | None = None
    """Training objects that the lenses look at, the first of those that the CLIP saw; none: each sensor's own (`OBJECTS`), as far
    as the CLIP saw so many.
    """
    epochs: int | None = None
    """Of every lens; none: each sensor's own (`EPOCHS`)."""
    batch_size: int = 128
    tokens: bool = True
    """Whether lenses are trained with terms on their tokens, for hosts that read those."""
    start: str | None = None
    """A Toybox model, zoo name or folder: its CLIP is taken, and so are the lenses that are not trained."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Arithmetic of the lenses' trainings: a CPU without bfloat16 takes ten times as long in it."""
    ablations: tuple[str, ...] = tuple(ABLATIONS)
    ablation_epochs: int = 1
    """Of every variant, the shipped one too: less than a lens gets, so that all of them are affordable."""
    seed: int = 0

    def __post_init__(self) -> None:
        known("toybox: unknown sensors", self.sensors, LENSES)
        known("toybox: unknown ablations", self.ablations, ABLATIONS)
        whole("toybox: objects", 1 if self.objects is None else self.objects, least=1, most=self.clip.objects)
        whole("toybox: epochs", 1 if self.epochs is None else self.epochs, least=1)
        whole("toybox: ablation_epochs", self.ablation_epochs, least=1)
        whole("toybox: batch_size", self.batch_size, least=2)
        one_of("toybox: precision", self.precision, ("bf16", "fp32"))
        if self.start is not None and self.ablations:
            raise OptionError(f"toybox: ablations begin at a new CLIP, not at {self.start}: leave them out (--no-ablations)")

    def lens_epochs(self, sensor: str) -> int:
        """Epochs of one sensor's lens."""
        return self.epochs or EPOCHS[sensor]

    def lens_objects(self, sensor: str) -> int:
        """Training objects of one sensor's lens."""
        return self.objects or min(OBJECTS[sensor], self.clip.objects)


@dataclass
class Trained:
    """What came of it: the model, its table, the ablations' tables, and the seconds every stage took."""

    model: ViTLens
    results: Results
    ablations: dict[str, Results]
    seconds: dict[str, float]


def stages(recipe: ToyboxRecipe) -> Sequence[str]:
    """What `train_toybox` does, in order."""
    clip = recipe.clip
    pictures = clip.objects + clip.clip_only
    new = recipe.start is None
    found = [f"draw {pictures} pictures; train the CLIP on them for {clip.epochs} epochs"] if new else [f"load {recipe.start}"]
    terms = ", with terms on its tokens" if recipe.tokens else ""
    found += [
        f"draw {recipe.lens_objects(sensor)} objects as {sensor} sees them; train its lens for {recipe.lens_epochs(sensor)} "
        f"epochs{terms}"
        for sensor in recipe.sensors
    ]
    found += [f"ablation, {recipe.ablation_epochs} epochs: {ABLATIONS[name]}" for name in recipe.ablations]
    return [*found, f"measure on {', '.join(f'{n} {split}' for split, n in HELD_OUT.items())}"]


@dataclass(frozen=True)
class GeneratorsRecipe:
    """Numbers of all trainings; the pictures are those of the CLIP."""

    objects: int = 24_000
    clip_only: int = 4_000
    hosts: tuple[HostRecipe, ...] = (HostRecipe(), HostRecipe(kind="llava"))
    """One of a kind; of a kind that is not among them the shipped one is measured."""
    composer: SeedRecipe | None = field(default_factory=SeedRecipe)
    """Of the SEED-LLaMA; none: it is not trained, and the shipped one is measured, if there is one."""
    painter: PainterRecipe | None = field(default_factory=PainterRecipe)
    """None: no painter is trained, and the shipped one is measured."""
    seed: int = 0

    def __post_init__(self) -> None:
        whole("toybox: objects", self.objects, least=1)
        whole("toybox: clip_only", self.clip_only, least=1)
        kinds = [host.kind for host in self.hosts]
        if len(set(kinds)) < len(kinds):
            raise OptionError(f"toybox: hosts: one of a kind, found {', '.join(kinds)}")

    def host(self, kind: HostKind) -> HostRecipe | None:
        """The recipe of a kind of host; none: it is not trained."""
        return next((host for host in self.hosts if host.kind == kind), None)

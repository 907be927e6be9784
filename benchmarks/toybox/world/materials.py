"""The Toybox's eight materials as facts: colours, how light leaves them, how they ring, warm up and yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

RGB = tuple[float, float, float]


class Finish(NamedTuple):
    """How a surface answers light. Shares are of 1; sharpness is the exponent of a Blinn-Phong highlight."""

    mirror: float
    """Reflectance looking straight on; towards the rim it rises to 1 as Schlick's formula says, times `rim`."""
    rim: float
    highlight: float
    sharpness: float
    tinted: bool = False
    """Whether reflections take the colour of the body (metals)."""
    sheen: float = 0.0
    """Light scattered back along the rim (fibres, rubber)."""
    clear: float = 0.0
    """Share of the light that goes through."""


@dataclass(frozen=True)
class Material:
    """One class of materials; colours are sRGB in 0..1 by the word a caption uses."""

    name: str
    adjective: str
    colours: dict[str, RGB]
    finish: Finish
    stiffness: float
    """Young's modulus in pascal."""
    density: float
    """Kilograms per cubic metre."""
    loss: float
    """Loss factor: the share of a vibration's energy that is lost per radian."""
    contact: float
    """Seconds that a hard hammer stays in contact: soft materials excite no high modes."""
    conductivity: float
    """Of heat: watts per metre and kelvin."""
    capacity: float
    """Joules that warm a kilogram by a kelvin."""
    emissivity: float
    """Share of a black body's radiation at 8 to 14 micrometres; the rest is mirrored."""
    give: float
    """Millimetres by which its skin yields to 10 kilopascal."""

    @property
    def sound_speed(self) -> float:
        """Metres per second along a thin bar."""
        return (self.stiffness / self.density) ** 0.5

    @property
    def diffusivity(self) -> float:
        """Square metres per second over which heat spreads."""
        return self.conductivity / (self.density * self.capacity)

    @property
    def effusivity(self) -> float:
        """J / (m² K s^½): how much heat the surface takes for a kelvin; what is high feels cold."""
        return (self.conductivity * self.density * self.capacity) ** 0.5


MATERIALS: dict[str, Material] = {
    material.name: material
    for material in (
        Material(
            "wood",
            "wooden",
            {"pale": (0.83, 0.68, 0.47), "brown": (0.60, 0.39, 0.21), "dark": (0.38, 0.23, 0.14), "reddish": (0.62, 0.30, 0.17)},
            Finish(0.03, 0.25, 0.10, 18),
            stiffness=11e9,
            density=650,
            loss=0.02,
            contact=0.6e-3,
            conductivity=0.15,
            capacity=1700,
            emissivity=0.90,
            give=0.15,
        ),
        Material(
            "metal",
            "metal",
            {
                "silver": (0.86, 0.87, 0.89),
                "copper": (0.93, 0.58, 0.42),
                "golden": (0.95, 0.77, 0.38),
                "grey": (0.50, 0.52, 0.56),
            },
            Finish(0.85, 1.0, 1.6, 90, tinted=True),
            stiffness=190e9,
            density=7800,
            loss=0.0006,
            contact=0.12e-3,
            conductivity=50,
            capacity=460,
            emissivity=0.18,
            give=0.01,
        ),
        Material(
            "glass",
            "glass",
            {"clear": (0.92, 0.97, 0.97), "green": (0.45, 0.85, 0.62), "blue": (0.45, 0.70, 0.95), "amber": (0.97, 0.72, 0.30)},
            Finish(0.06, 0.9, 1.8, 160, clear=0.88),
            stiffness=70e9,
            density=2500,
            loss=0.0022,
            contact=0.1e-3,
            conductivity=1.0,
            capacity=840,
            emissivity=0.91,
            give=0.01,
        ),
        Material(
            "rubber",
            "rubber",
            {"black": (0.13, 0.13, 0.14), "grey": (0.33, 0.34, 0.35), "maroon": (0.40, 0.15, 0.15), "olive": (0.29, 0.32, 0.18)},
            Finish(0.01, 0.05, 0.05, 6, sheen=0.18),
            stiffness=0.06e9,
            density=1150,
            loss=0.22,
            contact=3.5e-3,
            conductivity=0.16,
            capacity=1900,
            emissivity=0.94,
            give=1.6,
        ),
        Material(
            "stone",
            "stone",
            {"grey": (0.60, 0.60, 0.59), "beige": (0.74, 0.67, 0.55), "slate": (0.37, 0.40, 0.44), "pinkish": (0.71, 0.57, 0.53)},
            Finish(0.01, 0.1, 0.03, 8),
            stiffness=45e9,
            density=2600,
            loss=0.012,
            contact=0.2e-3,
            conductivity=2.8,
            capacity=800,
            emissivity=0.93,
            give=0.01,
        ),
        Material(
            "fabric",
            "fabric",
            {"red": (0.72, 0.20, 0.22), "blue": (0.24, 0.36, 0.62), "yellow": (0.85, 0.66, 0.25), "green": (0.32, 0.50, 0.33)}
            | {"purple": (0.48, 0.31, 0.55)},
            Finish(0.0, 0.0, 0.0, 1, sheen=0.45),
            stiffness=0.002e9,
            density=300,
            loss=0.6,
            contact=8e-3,
            conductivity=0.05,
            capacity=1300,
            emissivity=0.85,
            give=9.0,
        ),
        Material(
            "plastic",
            "plastic",
            {"red": (0.88, 0.12, 0.12), "blue": (0.10, 0.32, 0.88), "yellow": (0.98, 0.83, 0.10), "green": (0.12, 0.68, 0.26)}
            | {"orange": (0.98, 0.48, 0.08), "pink": (0.96, 0.42, 0.66)},
            Finish(0.045, 0.35, 0.7, 55),
            stiffness=2.6e9,
            density=1100,
            loss=0.045,
            contact=0.8e-3,
            conductivity=0.2,
            capacity=1500,
            emissivity=0.90,
            give=0.5,
        ),
        Material(
            "ceramic",
            "ceramic",
            {
                "white": (0.93, 0.93, 0.90),
                "cream": (0.92, 0.85, 0.70),
                "turquoise": (0.40, 0.72, 0.72),
                "cobalt": (0.20, 0.30, 0.58),
            },
            Finish(0.08, 0.75, 1.3, 220),
            stiffness=60e9,
            density=2400,
            loss=0.006,
            contact=0.14e-3,
            conductivity=1.5,
            capacity=900,
            emissivity=0.95,
            give=0.01,
        ),
    )
}

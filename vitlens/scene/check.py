"""Is a recording what it is taken for? Wrong scale, inverted or OpenGL poses, another picture's intrinsics, lost frames: each
named with its likely cause and the option that repairs it, before anything is computed.

    report = check(recording)
    report.faults[0].text      # "poses look world-to-camera: median depth error 0.41 m, inverted 0.004 m"
    report.repair              # {"pose_direction": "world-to-camera"}: overrides that repair it all
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from vitlens.scene.camera import same_shape
from vitlens.scene.recording import Recording
from vitlens.scene.reprojection import GOOD, Evidence, Fit, Hypothesis, changes, choose_pairs, nearby, search, spread

BETTER = 0.7
"""A hypothesis is a fault's name when its median error is less than this share of that of the recording as it is understood."""
DISAGREES = 0.06
"""Median difference of depth, as a share of it, above which frames do not fit each other."""
MOST_FRAMES = 300
"""Of longer recordings so many frames are held against their neighbours."""
CHUNK = 40
DEPTH_SCALES = (1.0, 100.0, 256.0, 1000.0, 4000.0, 5000.0, 6553.5, 10000.0)
POSE_UNITS = (0.001, 0.01, 0.0254, 0.1, 0.3048, 10.0, 100.0, 1000.0)
SIZES = (
    (256, 192), (320, 240), (640, 480), (800, 600), (960, 720), (1024, 768), (1280, 960), (1296, 968), (1440, 1080), (1600, 1200),
    (1920, 1440), (640, 360), (848, 480), (960, 540), (1280, 720), (1920, 1080), (3840, 2160), (1200, 680), (192, 256),
    (480, 640), (720, 960), (1440, 1920),
)  # fmt: skip
INDOORS = (0.15, 30.0)
"""Metres between which the median depth of a place that people scan lies."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, in a sentence, and the options that repair it, as they are written and as overrides."""

    text: str
    option: str = ""
    repair: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What was found. `recording` has lost more frames than the one that was checked: those whose poses fit no neighbour."""

    recording: Recording
    now: Fit
    """How well the frames fit each other as the recording is understood."""
    best: Fit
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def repair(self) -> dict[str, Any]:
        """Overrides that repair all faults which can be."""
        return {name: value for fault in self.faults for name, value in fault.repair.items()}

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "recording": self.recording.about(),
            "median_depth_error": _finite(self.now.error),
            "median_depth_error_repaired": _finite(self.best.error),
            "faults": [{"text": fault.text, "option": fault.option} for fault in self.faults],
            "lost": [{"frame": name, "why": why} for name, why in self.recording.lost],
            "notes": list(self.notes),
        }


def _finite(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def check(recording: Recording, *, progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Hold a recording's frames against each other, and against other ways in which it may be meant."""
    notes = list(recording.notes)
    evidence = Evidence(recording, choose_pairs(recording))
    recording = recording.without(evidence.unreadable)
    nothing = Fit(0.0, float("inf"), float("inf"), 0.0)
    if not evidence.pairs:
        text = f"{len(recording.usable)} usable frames that see the same: nothing can be held against each other"
        return Report(recording, nothing, nothing, (), (*notes, text))
    now, fit = evidence.now(), evidence.fit(evidence.now())
    best, better = _best(evidence, fit)
    faults: list[Fault] = []
    if changes(best, now) and better.score > fit.score and better.relative < BETTER * fit.relative:
        faults, better = _faults(recording, now, best, fit, better)
    else:
        best, better = now, fit
    if better.relative > DISAGREES or better.seen < 0.02:
        faults = [Fault(_hopeless(fit, better))]
    elif evidence.parallax() * best.scale**-1 < 0.01:
        notes.append("the camera hardly moves between frames: scale and direction of the poses cannot be told from them")
    if not (faults and not faults[0].repair):
        stray, breaks, looked = stray_frames(recording, best, progress)
        recording = recording.without(stray)
        notes += breaks
        if looked < len(recording.usable) + len(stray):
            notes.append(f"{looked} of {len(recording.usable) + len(stray)} frames were held against their neighbours")
    return Report(recording, fit, better, tuple(faults), tuple(notes))


def _best(evidence: Evidence, fit: Fit) -> tuple[Hypothesis, Fit]:
    """The best hypothesis: near by where frames fit already, of all where they do not."""
    return search(evidence) if fit.score < GOOD else nearby(evidence)


def _hopeless(fit: Fit, best: Fit) -> str:
    if best.seen < 0.02:
        return "the frames see nothing in common, whatever the poses mean: are these the poses of these frames? (--trajectory)"
    return (
        f"depth and poses do not fit together, whatever they mean: median depth error {metres(fit.error)}, at best "
        f"{metres(best.error)}. Likely causes: poses of other frames or another order (--trajectory, --time-difference), "
        f"depth that is not registered to these intrinsics (--intrinsics), a trajectory that drifts"
    )


def _faults(recording: Recording, now: Hypothesis, best: Hypothesis, fit: Fit, better: Fit) -> tuple[list[Fault], Fit]:
    """A fault for each thing that differs, and the fit in metres as they will be then.

    The last one's sentence ends with the errors before and after all repairs.
    """
    found: list[tuple[str, str, dict[str, Any]]] = []
    if best.direction != now.direction:
        found.append((f"poses look {best.direction}", f"--pose-direction {best.direction}", {"pose_direction": best.direction}))
    if best.convention != now.convention:
        axes = "OpenGL's (y up, z back)" if best.convention == "opengl" else "OpenCV's (y down, z forward)"
        text = f"the camera's axes look like {axes}"
        found.append((text, f"--pose-convention {best.convention}", {"pose_convention": best.convention}))
    if changes(Hypothesis(now.convention, now.direction, scale=best.scale), now):
        found.append(_scale_fault(recording, best.scale))
    if changes(Hypothesis(now.convention, now.direction, zoom=best.zoom), now):
        found.append(_zoom_fault(recording, best))
    if any("pose_scale" in repair for _, _, repair in found):  # depth stays as it is read
        better = replace(better, error=better.error / best.scale)
    inverted = len(found) == 1 and "pose_direction" in found[0][2]
    how = "inverted" if inverted else "repaired" if len(found) == 1 else "with all repairs"
    after = f": median depth error {metres(fit.error)}, {how} {metres(better.error)}"
    last = len(found) - 1
    faults = [Fault(text + after * (place == last), option, repair) for place, (text, option, repair) in enumerate(found)]
    return faults, better


def _scale_fault(recording: Recording, scale: float) -> tuple[str, str, dict[str, Any]]:
    """Depth is `scale` times what is read, relative to the positions: which of the two has the wrong unit?"""
    depths = [recording.depth(place) for place in spread(recording.usable, 3)]
    middle = float(np.median(np.concatenate([depth[depth > 0] for depth in depths])))
    stored, unit = recording.depth_scale / scale, recording.pose_scale / scale
    known, known_unit = snapped(stored, DEPTH_SCALES), snapped(unit, POSE_UNITS)
    if INDOORS[0] < middle * scale < INDOORS[1] and (known or not INDOORS[0] < middle < INDOORS[1]):
        value = known or float(f"{stored:.4g}")
        text = f"the depth scale looks like {value:g} stored units per metre, not {recording.depth_scale:g}"
        return text, f"--depth-scale {value:g}", {"depth_scale": value}
    value = known_unit or float(f"{unit:.4g}")
    text = (
        f"the poses' unit looks like {value:g} m, not {recording.pose_scale:g} m (or else depth has {stored:.4g} units per metre)"
    )
    return text, f"--pose-scale {value:g}", {"pose_scale": value}


def _zoom_fault(recording: Recording, best: Hypothesis) -> tuple[str, str, dict[str, Any]]:
    camera = recording.depth_camera
    if not best.magnify:
        fitting = best.camera(camera)
        values = tuple(float(f"{value:.5g}") for value in (fitting.fx, fitting.fy, fitting.cx, fitting.cy))
        text = f"the focal length looks like {values[0]:g} pixels, not {camera.fx:.5g}"
        return text, f"--intrinsics {','.join(f'{value:g}' for value in values)}", {"intrinsics": values}
    width, height = (side / best.zoom for side in recording.intrinsics_size)
    sizes = [size for size in (recording.colour_camera.size, *SIZES) if same_shape(size, camera.size)]
    size = next((size for size in sizes if abs(size[0] / width - 1) < 0.03), (round(width), round(height)))
    whose = ", the size of the colour pictures" if size == recording.colour_camera.size else ""
    text = f"the intrinsics look like those of {size[0]} x {size[1]} pictures{whose}, not of {camera.width} x {camera.height}"
    return text, f"--intrinsics-size {size[0]}x{size[1]}", {"intrinsics_size": size}


def snapped(value: float, known: tuple[float, ...]) -> float | None:
    """The known number that a measured one stands for."""
    return next((one for one in known if abs(value / one - 1) < 0.04), None)


def metres(value: float) -> str:
    """A distance with as many digits as mean something."""
    if not np.isfinite(value):
        return "(nothing in common)"
    return f"{value:.2g} m" if value < 1 else f"{value:.2f} m" if value < 100 else f"{value:.0f} m"


def stray_frames(
    recording: Recording, best: Hypothesis, progress: Callable[[int, int], None]
) -> tuple[list[tuple[int, str]], list[str], int]:
    """Frames that fit none of their neighbours (tracking jumped, or the depth map is bad), each with its reason; notes on places
    where the trajectory breaks; and how many frames were looked at."""
    usable = recording.usable
    count = min(MOST_FRAMES, len(usable))
    order = [usable[int(place)] for place in np.linspace(0, len(usable) - 1, count)]
    fits: dict[tuple[int, int], Fit] = {}
    bad: list[tuple[int, str]] = []
    for start in range(0, len(order), CHUNK):
        progress(start, len(order))
        part = range(start, min(start + CHUNK, len(order)))
        pairs = [(order[a], order[b]) for a in part for b in (a - 2, a - 1, a + 1, a + 2) if 0 <= b < len(order)]
        evidence = Evidence(recording, pairs, points=300)
        bad += evidence.unreadable
        fits |= dict(zip(evidence.pairs, evidence.fits(best), strict=True))
    progress(len(order), len(order))
    near: dict[int, list[Fit]] = defaultdict(list)
    for (source, _), fit in fits.items():
        near[source] += [fit] if fit.seen > 0.1 else []
    stray = [(place, min(found, key=lambda fit: fit.relative)) for place, found in near.items()]
    lost = [(place, fit) for place, fit in stray if fit.relative > DISAGREES]
    if len(lost) > 0.3 * len(order):
        return list(dict(bad).items()), [f"{len(lost)} of {len(order)} frames do not fit their neighbours"], len(order)
    bad += [(place, f"its pose does not fit its neighbours (depth differs by {metres(fit.error)})") for place, fit in lost]
    gone = dict(bad)
    breaks = []
    kept = [place for place in order if place not in gone]
    for a, b in pairwise(kept):
        across = fits.get((a, b))
        if across is not None and across.seen > 0.1 and across.relative > DISAGREES:
            names = (recording.frames[a].name, recording.frames[b].name)
            breaks.append(f"the trajectory breaks between {names[0]} and {names[1]} (depth differs by {metres(across.error)})")
    return list(gone.items()), breaks, len(order)

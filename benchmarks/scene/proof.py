"""What every sense finds in rooms of Toybox objects: the share of queries whose best point lies in the right object.

Rooms are written as recordings, checked and built as any other. An object is asked for by its sound, touch, scan, depth map, EEG,
name and description, and by a picture of it; each measured by itself, elsewhere and in another light. Touch and sound know
materials only: right is any object of the material. Chance is the share of the scene's voxels that would be right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.benchmarks.scene.room import FRAMES, Placed, ToyRoom, write_room
from vitlens.benchmarks.toybox.sensors.catalogue import as_items, observe
from vitlens.benchmarks.toybox.sensors.drawn import LABELS
from vitlens.benchmarks.toybox.world.captions import SHAPE_PROMPTS, TEMPLATES, describe
from vitlens.disk import atomic
from vitlens.display.pictures import sample_picture
from vitlens.display.table import Table
from vitlens.errors import OptionError
from vitlens.scene.build import Settings, build
from vitlens.scene.check import check
from vitlens.scene.folder import CARD, Scene, open_scene
from vitlens.scene.layouts import open_recording
from vitlens.scene.page import Asked, write_page
from vitlens.scene.search import Answer, find
from vitlens.scene.view import Studio, draw
from vitlens.scene.windows import Cutting

if TYPE_CHECKING:
    from vitlens.model import ViTLens

MODEL = "vitlens-toybox"
ROOMS, TAKES = 3, 3
"""Rooms of twelve objects; measurements of each by every sense: 108 queries a sense."""
WINDOWS = (0.32, 0.6, 1.05)
"""Metres; the Toybox's pictures show small, medium and large objects (0.24, 0.45, 0.78 m) so large that this much is seen."""
KINECT = 4.5
"""Metres that a Kinect's depth is good for."""
NEAR = 0.25
"""Metres from an object within which a point is said to be near it."""
SENSES = {
    "image": "a picture of it",
    "point_cloud": "its scan",
    "depth": "its depth map",
    "eeg": "EEG of who looks at it",
    "audio": "the sound of it struck",
    "tactile": "its touch",
    "name": "its name",
    "description": "a sentence about it",
}
"""How an object is asked for, in words."""


@dataclass(frozen=True)
class Query:
    """A measurement of the object number `target` of a room."""

    sense: str
    target: int
    item: Any

    @property
    def modality(self) -> str:
        """The modality that reads it."""
        return "text" if self.sense in ("name", "description") else self.sense


@dataclass(frozen=True)
class SenseScore:
    """Shares of 1, of the queries of one sense: best point in a right object's box, within 0.25 m of it, in any object."""

    sense: str
    asked_for: str
    queries: int
    right: float
    near: float
    any_object: float
    chance: float
    chance_near: float


def queries(room: ToyRoom, takes: int = TAKES) -> Iterator[Query]:
    """Every object by every sense; take 0, of which the shipped model was measured, is left out."""
    for target, one in enumerate(room.placed):
        for take in range(1, takes + 1):
            for sense, item in as_items(observe(one.stage, take=take)).items():
                if sense in SENSES:
                    yield Query(sense, target, item)
        for sense, templates in (("name", SHAPE_PROMPTS), ("description", TEMPLATES)):
            for template in templates:
                yield Query(sense, target, describe(one.thing, template))


def inside(points: np.ndarray, one: Placed, margin: float) -> np.ndarray:
    """Which of the points [n, 3] lie in an object's box grown by `margin` metres; the floor under it does not count."""
    low, high = one.box()
    return ((points > low - margin) & (points < high + margin)).all(axis=1) & (points[:, 1] > 0.04)


def beside(points: np.ndarray, one: Placed) -> np.ndarray:
    """Which of the points [n, 3] lie within `NEAR` of an object's box, on the floor or not."""
    low, high = one.box()
    return np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=1) <= NEAR


def scored(scene: Scene, room: ToyRoom, asked: list[Query], answers: list[Answer]) -> list[dict[str, Any]]:
    """For every query: whether its best point is right, near, or in any object; and by what chance it would be right, or near."""
    points, size = scene.voxels.points, scene.voxels.size
    within = np.stack([inside(points, one, size) for one in room.placed])
    around = np.stack([beside(points, one) for one in room.placed])
    rows = []
    for query, answer in zip(asked, answers, strict=True):
        material = LABELS.get(query.sense) == "material"
        wanted = room.placed[query.target].thing.material
        right = [i for i, one in enumerate(room.placed) if i == query.target or (material and one.thing.material == wanted)]
        best = answer.places[0].point[None]
        rows.append(
            {
                "sense": query.sense,
                "right": any(inside(best, room.placed[i], size)[0] for i in right),
                "near": any(beside(best, room.placed[i])[0] for i in right),
                "any_object": any(inside(best, one, size)[0] for one in room.placed),
                "chance": float(within[right].any(axis=0).mean()),
                "chance_near": float(around[right].any(axis=0).mean()),
            }
        )
    return rows


def prepared(folder: Path, room: ToyRoom, load: Callable[[], ViTLens], say: Callable[[str], None], frames: int) -> Scene:
    """The room's scene; what an earlier run made is used again."""
    recorded, built = folder / f"room-{room.seed}", folder / f"room-{room.seed}.scene"
    if (built / CARD).is_file():
        return open_scene(built)
    say(f"room {room.seed}: drawing {frames} frames")
    for _ in write_room(room, recorded, frames):
        pass
    report = check(open_recording(recorded))
    if report.faults:
        raise OptionError(f"{recorded}: {'; '.join(fault.text for fault in report.faults)}: delete the folder and try again")
    say(f"room {room.seed}: building the scene")
    settings = Settings(most_depth=KINECT, cutting=Cutting(sizes=WINDOWS), batch_size=64)
    return build(report.recording, built, load, settings, check=report.to_dict())


def ask(model: ViTLens, scene: Scene, asked: list[Query]) -> list[Answer]:
    """The answers to all queries of a room."""
    vectors: dict[int, np.ndarray] = {}
    for modality in dict.fromkeys(query.modality for query in asked):
        places = [place for place, query in enumerate(asked) if query.modality == modality]
        rows = model.encode({modality: [asked[place].item for place in places]}, batch_size=64)[modality].numpy()
        vectors |= dict(zip(places, rows, strict=True))
    return [find(scene, vectors[place], model.space, most=1, views=1) for place in range(len(asked))]


def prove(
    folder: Path, *, rooms: int = ROOMS, takes: int = TAKES, frames: int = FRAMES, say: Callable[[str], None] = lambda text: None
) -> list[SenseScore]:
    """Measure in `folder`, where a stopped run goes on; writes scores.json, page.html (a query a sense) and their pictures."""
    import vitlens

    model = vitlens.load(MODEL)
    rows: list[dict[str, Any]] = []
    for seed in range(rooms):
        room = ToyRoom(seed)
        scene = prepared(folder, room, lambda: model, say, frames)
        asked = list(queries(room, takes))
        say(f"room {seed}: asking {len(asked)} times")
        answers = ask(model, scene, asked)
        rows += scored(scene, room, asked, answers)
        if seed == 0:
            show(folder, scene, room, model, asked)
    scores = [summed(sense, [row for row in rows if row["sense"] == sense]) for sense in SENSES]
    with atomic(folder / "scores.json") as part:
        part.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n", encoding="utf-8")
    return scores


def summed(sense: str, rows: list[dict[str, Any]]) -> SenseScore:
    """The means of one sense's queries."""
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("right", "near", "any_object", "chance", "chance_near")}
    return SenseScore(sense, "material" if LABELS.get(sense) == "material" else "object", len(rows), **means)


def table(scores: list[SenseScore]) -> Table:
    """The scores, in percent."""
    rows = []
    for s in scores:
        shares = (s.right, s.near, s.any_object, s.chance, s.chance_near)
        rows.append((SENSES[s.sense], s.asked_for, str(s.queries), *(f"{100 * share:.1f}" for share in shares)))
    head = ("asked by", "right is", "queries", "in it", "within 0.25 m", "in any object", "chance", "chance within 0.25 m")
    return Table(head, rows, title="Where the best point lies, percent of queries", numbers=head[2:])


def show(folder: Path, scene: Scene, room: ToyRoom, model: ViTLens, asked: list[Query]) -> None:
    """A page that turns, with a query of every sense, and its pictures beside it: of each sense the same object."""
    chosen = {sense: next(query for query in asked if query.sense == sense and query.target == 6) for sense in SENSES}
    shown, studio = [], Studio(scene)
    for sense, query in chosen.items():
        vector = model.encode({query.modality: [query.item]})[query.modality][0].numpy()
        answer = find(scene, vector, model.space)
        thing = room.placed[query.target].thing
        words = f": “{query.item}”" if query.modality == "text" else f" ({thing.material} {thing.shape})"
        modality = model.modality(query.modality)
        picture = None if query.modality == "text" else sample_picture(modality, modality.load(query.item))
        shown.append(Asked(f"{SENSES[sense]}{words}", answer, picture))
        draw(scene, answer, folder / f"{sense}.png", title=shown[-1].label, studio=studio)
    write_page(scene, shown, folder / "page.html", title="A room of toys, asked by every sense", studio=studio)

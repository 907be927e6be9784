"""The Toybox's sensors: physical units, agreement with the object's geometry, determinism, and signals that carry their label."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.ndimage import label as connected

from vitlens.benchmarks.toybox import MATERIALS, SENSORS, Detail, Stage, ToyObject, World, as_items, observe
from vitlens.benchmarks.toybox.sensors.brain import features, watch
from vitlens.benchmarks.toybox.sensors.heat import warmed, warming
from vitlens.benchmarks.toybox.sensors.picture import picture
from vitlens.benchmarks.toybox.sensors.press import CELLS, PUSH, SIDE, borne, set_down, volume, weight
from vitlens.benchmarks.toybox.sensors.sound import RATE, decay_rates, strike
from vitlens.benchmarks.toybox.sensors.touch import touch
from vitlens.benchmarks.toybox.sensors.views import depth, scan
from vitlens.benchmarks.toybox.world.primitives import box, cylinder, dot
from vitlens.benchmarks.toybox.world.stage import focal_length
from vitlens.errors import OptionError
from vitlens.modality import modality_class

WORLD = World(0)


@cache
def of(shape: str, material: str, split: str = "train", place: int = 0) -> Stage:
    """The `place`-th object of a split of this shape and material."""
    found = (WORLD.object(split, i) for i in range(100_000))  # type: ignore[arg-type]
    return Stage([next(t for t in found if (t.shape, t.material) == (shape, material)) for _ in range(place + 1)][-1])


@cache
def observed(index: int = 5) -> dict[str, np.ndarray]:
    return observe(WORLD.object("train", index))


# --- determinism ---


def test_an_object_measured_twice_gives_the_same_bytes() -> None:
    again = observe(World(0).object("train", 5))
    assert list(again) == list(SENSORS)
    for name, array in observed().items():
        assert array.tobytes() == again[name].tobytes() and array.dtype == again[name].dtype


@pytest.mark.parametrize("name", SENSORS)
def test_a_sensor_does_not_depend_on_which_others_measure(name: str) -> None:
    assert np.array_equal(observe(WORLD.object("train", 5), [name])[name], observed()[name])


@pytest.mark.parametrize("name", SENSORS)
def test_takes_and_worlds_differ(name: str) -> None:
    others = [observe(WORLD.object("train", 5), [name], take=1), observe(World(1).object("train", 5), [name])]
    for other in others:
        assert not np.array_equal(other[name], observed()[name])


def test_unknown_sensors_and_details_are_refused() -> None:
    with pytest.raises(OptionError, match="smell"):
        observe(WORLD.object("train", 0), ["smell"])
    with pytest.raises(OptionError, match="points"):
        Detail(points=0)


# --- units and geometry ---


def test_arrays_have_their_shapes_and_units() -> None:
    detail = Detail(picture=48, depth=40, touch=32, thermal=24, points=500)
    found = observe(WORLD.object("test", 3), detail=detail)
    assert found["image"].shape == (48, 48, 3) and found["image"].dtype == np.uint8
    assert found["depth"].shape == (40, 40) and found["depth"].dtype == np.float32
    assert found["tactile"].shape == (32, 32, 3) and found["tactile"].dtype == np.uint8
    assert found["point_cloud"].shape == (500, 6) and found["point_cloud"].dtype == np.float32
    assert found["audio"].shape == (RATE,) and found["audio"].dtype == np.float32
    assert found["eeg"].shape == (128, 500) and found["eeg"].dtype == np.float32
    assert found["thermal"].shape == (24, 24) and found["thermal"].dtype == np.float32
    assert found["pressure"].shape == (24, 48, 48) and found["pressure"].dtype == np.float32
    assert scan(Stage(WORLD.object("test", 3)), points=100, colour=False).shape == (100, 3)


@pytest.mark.parametrize("index", range(8))
def test_measurements_are_physically_sane(index: int) -> None:
    thing = WORLD.object("validation", index)
    found = observe(thing)
    assert 30 < found["image"].mean() < 240 and found["image"].std() > 10
    assert found["depth"].min() > 0.15 and found["depth"].max() < 12
    xyz, rgb = np.split(found["point_cloud"], 2, axis=1)
    assert np.ptp(xyz, axis=0).max() == pytest.approx(thing.size, rel=0.08)
    assert xyz[:, 1].min() > -0.03 * thing.size and rgb.min() >= 0 and rgb.max() <= 1
    assert 0.1 < np.abs(found["audio"]).max() <= 1
    microvolts = 1e6 * found["eeg"]
    assert 3 < microvolts.std() < 40 and np.abs(microvolts).max() < 200
    assert 280 < found["thermal"].min() < 298 and found["thermal"].max() < 345
    assert not found["pressure"][0].max() > 0.2 and 1 < found["pressure"].max() < 5000


def test_the_depth_map_is_metres_along_the_camera_axis() -> None:
    """Unprojected with the camera that the items name, a ball's pixels lie on the ball."""
    stage = of("ball", "stone")
    camera = as_items({"depth": depth(stage)})["depth"]
    assert camera["focal_length"] == pytest.approx(focal_length(64), abs=1e-3)
    metres, room = depth(stage, noise=False), stage.room()
    v, u = np.mgrid[:64, :64] + 0.5
    local = np.stack([(u - 32) / camera["focal_length"], -(v - 32) / camera["focal_length"], np.ones_like(u)], axis=-1)
    points = room.position + (metres[..., None] * local).reshape(-1, 3) @ room.axes
    scene = points[:, 1] > 0.01
    wall = np.abs(points @ room.wall_normal + room.wall) < 0.01
    radius = stage.thing.size / 2
    away = np.linalg.norm((points - [0, stage.mesh.extent()[1] / 2, 0])[scene & ~wall], axis=1)
    assert len(away) > 400 and np.abs(away / radius - 1).max() < 0.09  # the ball may be a little flat
    floor = ~scene & ~wall
    assert floor.sum() > 100 and np.abs(points[floor, 1]).max() < 0.02


def test_pictures_and_depth_maps_show_the_same_view() -> None:
    """Bright plastic has another chroma than any floor or wall: where it is seen, the depth map must have an object."""
    stage = of("wheel", "plastic")
    coloured, nearer = [], []
    for take in (0, 1):
        room, pixels = stage.room(take), picture(stage, take=take).astype(float)
        background = room.meet(room.directions(64))[0].reshape(64, 64)
        nearer.append(depth(stage, take=take, noise=False) < background - 0.005)
        coloured.append(np.ptp(pixels, axis=2) / pixels.max(axis=2) > 0.6)
    agree = [[(c & n).sum() / (c | n).sum() for n in nearer] for c in coloured]
    assert min(agree[0][0], agree[1][1]) > 0.65 and max(agree[0][1], agree[1][0]) < 0.4


def test_the_noise_of_depth_is_a_few_millimetres() -> None:
    stage = of("chair", "wood")
    error = depth(stage) - depth(stage, noise=False)
    assert 0.0005 < error.std() < 0.03


def test_scans_lie_on_the_surface_and_colour_does_not_move_them() -> None:
    stage = of("ball", "wood")
    clean, noisy = scan(stage, noise=False), scan(stage)
    middle = np.array([0, stage.mesh.extent()[1] / 2, 0])
    radius = np.linalg.norm((clean[:, :3] - middle) / (stage.mesh.extent() / 2), axis=1)
    assert np.abs(radius - 1).max() < 0.02  # between the corners of a mesh
    spread = (noisy - clean)[:, :3].std()
    assert 0.002 * stage.thing.size < spread < 0.008 * stage.thing.size
    assert np.array_equal(scan(stage, colour=False), noisy[:, :3])
    upper = (clean[:, 1] > middle[1]).mean()
    assert 0.44 < upper < 0.56  # evenly by area


def test_what_lies_inside_is_not_scanned() -> None:
    """The balls of a snowman overlap; no point of one lies deep inside another."""
    stage = of("snowman", "plastic", "clip_only")
    points = scan(stage, noise=False)[:, :3] / stage.thing.size
    # The lowest ball stands on the ground, so that its points say its radius.
    low = points[points[:, 1] < 0.15]
    radius = float(np.median(dot(low, low) / (2 * low[:, 1])))
    distance = np.linalg.norm(points - [0, radius, 0], axis=1)
    assert distance.min() > 0.97 * radius


def test_large_things_are_large_in_the_scan_and_far_in_the_depth_map() -> None:
    things = WORLD.objects("train", 60)
    near = {word: [depth(Stage(t)).min() for t in things if t.size_word == word][:8] for word in ("small", "large")}
    assert np.mean(near["large"]) > 1.5 * np.mean(near["small"])


# --- materials ---


def ringing_time(sound: np.ndarray) -> float:
    """Seconds until the remaining energy has fallen by 20 dB (Schroeder's backward integration), background noise aside."""
    noise = np.median(sound[-1600:] ** 2)
    energy = np.cumsum((sound**2 - noise)[::-1])[::-1]
    start = int(np.abs(sound).argmax())
    return float((energy[start:] < 1e-2 * energy[start]).argmax() / RATE)


def test_metal_rings_longer_than_wood_and_wood_longer_than_rubber() -> None:
    time = {}
    for material in MATERIALS:
        stages = [Stage(t) for t in WORLD.objects("train", 400) if t.material == material][:12]
        time[material] = float(np.median([ringing_time(strike(stage)) for stage in stages]))
    order = ["metal", "glass", "ceramic", "wood", "rubber"]
    assert [time[m] for m in order] == sorted((time[m] for m in order), reverse=True)
    assert time["metal"] > 3 * time["wood"] and time["wood"] > 1.3 * time["rubber"]
    rates = [float(decay_rates(MATERIALS[m], np.array([500.0]))[0]) for m in order]
    assert rates == sorted(rates)


def test_larger_things_sound_lower() -> None:
    from vitlens.benchmarks.toybox.sensors.sound import modes

    things = [t for t in WORLD.objects("train", 2000) if (t.shape, t.material) == ("vase", "metal")]
    lowest = {word: np.mean([modes(Stage(t))[0] for t in things if t.size_word == word]) for word in ("small", "large")}
    assert lowest["small"] > 2 * lowest["large"]
    assert all(20 < modes(Stage(t))[0] < 8000 for t in WORLD.objects("train", 40))


def test_smooth_materials_feel_smooth() -> None:
    def roughness(material: str) -> float:
        stages = [Stage(t) for t in WORLD.objects("train", 300) if t.material == material][:8]
        lit = [touch(stage).astype(float) for stage in stages]
        return float(np.median([np.abs(np.diff(x, axis=1)).mean() + np.abs(np.diff(x, axis=0)).mean() for x in lit]))

    smooth = {material: roughness(material) for material in ("glass", "ceramic", "plastic", "stone", "rubber", "fabric")}
    for rough in ("stone", "rubber", "fabric"):
        assert smooth[rough] > 2 * max(smooth["glass"], smooth["ceramic"])
    assert smooth["plastic"] > smooth["glass"]


# --- warmth and weight ---


def test_what_takes_little_heat_warms_most() -> None:
    rises = {name: warming(material, 300) for name, material in MATERIALS.items()}
    assert rises["fabric"] > rises["wood"] > rises["plastic"] > rises["glass"] > rises["stone"] > rises["metal"] > 0
    still = MATERIALS["stone"]  # without cooling the surface of a half-space warms with the root of time, 2 sqrt(t / pi) / e
    assert warming(still, 400, cooling=1e-3) == pytest.approx(2 * (400 / np.pi) ** 0.5 / still.effusivity, rel=0.01)


def test_a_thermal_map_shows_the_view_of_the_picture() -> None:
    stage = of("ball", "rubber")
    room, kelvin = stage.room(), warmed(stage, noise=False)
    thing = depth(stage, noise=False) < room.meet(room.directions(64))[0].reshape(64, 64) - 0.005
    inner, outer = binary_erosion(thing, iterations=2), ~binary_dilation(thing, iterations=2)
    steps = np.hypot(*np.gradient(kelvin))
    assert steps[~inner & ~outer].mean() > 3 * np.median(steps[inner | outer])
    noise = warmed(stage) - kelvin
    assert 0.03 < noise.std() < 0.07


@pytest.mark.parametrize(("shape", "feet"), [("chair", 4), ("tower", 1), ("arch", 2)])
def test_the_mat_bears_weight_and_hand_where_the_object_stands(shape: str, feet: int) -> None:
    stage = of(shape, "wood")
    film = set_down(stage, noise=False)
    newtons = 1000 * film.sum(axis=(1, 2)) * (SIDE / CELLS) ** 2
    assert newtons[0] == 0
    assert newtons[11] == pytest.approx(weight(stage), rel=0.15)  # it rests; then comes the hand
    assert newtons[-1] - newtons[11] == pytest.approx(PUSH, rel=0.2)
    assert connected(film[-1] > 0.2 * film[-1].max())[1] == feet


def test_soft_skins_yield() -> None:
    depths = np.array([0.0, 0.004, 0.02])
    hard, soft = borne(MATERIALS["stone"], depths), borne(MATERIALS["fabric"], depths)
    assert hard[0] == soft[0] == 0 and (soft[1:] < 0.7 * hard[1:]).all()
    assert volume(box(0.2, 0.3, 0.4).move(1, 2, 3)) == pytest.approx(0.024, rel=1e-4)
    assert volume(cylinder(0.1, 0.5)) == pytest.approx(np.pi * 0.005, rel=0.01)


# --- the brain ---


def test_the_brain_answers_to_what_is_seen_by_a_fixed_linear_mixing() -> None:
    stage, other = of("chair", "wood"), of("mug", "metal")
    seen = picture(stage)
    clean = watch(stage, noise=False)
    assert np.array_equal(clean, watch(stage, noise=False, seen=seen))
    assert np.abs(clean[:, :40]).max() < 0.1 * np.abs(clean).max()  # nothing before the eye's answer has arrived
    assert set(features(stage, seen)) == {"light", "edges", "matter", "form"}
    assert all(np.isfinite(f).all() and 0.1 < f.std() < 4 for f in features(stage, seen).values())
    # Noise changes from take to take, and is larger than the answer.
    noise = watch(stage) - clean
    assert noise.std() > clean.std() and noise.std() < 10 * clean.std()
    form = features(stage, picture(stage, take=3))["form"]
    assert np.array_equal(form, features(stage, seen)["form"])
    assert not np.allclose(form, features(other, picture(other))["form"])


def test_eeg_noise_falls_with_frequency() -> None:
    stage = of("chair", "wood")
    noise = watch(stage) - watch(stage, noise=False)
    power = (np.abs(np.fft.rfft(noise * np.hanning(500), axis=1)) ** 2).mean(axis=0)  # 2 Hz a bin
    assert power[2:5].mean() > 5 * power[15:25].mean() > 25 * power[100:200].mean()


# --- the modalities read them, and they carry their labels ---


@pytest.mark.parametrize("name", SENSORS)
def test_the_modality_takes_arrays_in_memory(name: str) -> None:
    modality = modality_class(name)(**({"seconds": 4.0} if name == "imu" else {}))
    sample = modality.load(as_items(observed())[name])
    assert np.allclose(np.squeeze(sample.data), observed()[name], atol=1e-6)
    assert modality.transform(sample).isfinite().all()


SHAPES_HERE = ("chair", "bottle", "wheel", "cube", "lamp", "ladder")
TRAIN, TEST = 26, 8
"""Objects of each of these shapes. Chance is 1/6 for shapes and 1/8 for materials."""


@cache
def labelled() -> tuple[list[dict[str, np.ndarray]], list[ToyObject]]:
    things = [t for t in WORLD.objects("train", 28 * (TRAIN + TEST)) if t.shape in SHAPES_HERE]
    return [observe(t) for t in things], things


def accuracy(rows: list[np.ndarray], labels: list[str], shrink: float) -> float:
    """Of a ridge classifier on standardised features, on the last objects after training on the first."""
    x = np.stack([row.ravel() for row in rows]).astype(np.float64)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    names, y = np.unique(labels, return_inverse=True)
    split = TRAIN * len(SHAPES_HERE)
    gram = x[:split] @ x[:split].T
    weights = np.linalg.solve(gram + shrink * x.shape[1] * np.eye(split), np.eye(len(names))[y[:split]] - 1 / len(names))
    return float(((x[split:] @ x[:split].T @ weights).argmax(axis=1) == y[split:]).mean())


def pooled(image: np.ndarray, cells: int = 16) -> np.ndarray:
    side = image.shape[0] // cells
    return image.reshape(cells, side, cells, side, -1).mean(axis=(1, 3))


def disparity(metres: np.ndarray) -> np.ndarray:
    return pooled(1 / metres - np.median(1 / metres))


def heights_and_radii(points: np.ndarray) -> np.ndarray:
    centred = points[:, :3] - points[:, :3].mean(axis=0)
    centred /= np.abs(centred).max()
    return np.sqrt(np.histogram2d(centred[:, 1], np.hypot(centred[:, 0], centred[:, 2]), bins=8, range=((-1, 1), (0, 1)))[0])


def grain(pixels: np.ndarray) -> np.ndarray:
    spectrum = np.abs(np.fft.fft2(pixels.mean(axis=2)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64))) * 64
    rings = [spectrum[(frequency >= low) & (frequency < 1.4 * low)] for low in 1.4 ** np.arange(10)]
    return np.log([f(ring) + 0.01 for ring in rings for f in (np.mean, np.max)])


def spectrogram(sound: np.ndarray) -> np.ndarray:
    frames = np.abs(np.fft.rfft(sound[: 31 * 512].reshape(31, 512) * np.hanning(512)))[:, 1:]
    return np.log(frames.reshape(31, 16, 16).mean(axis=2) + 1e-3)


def warmth(kelvin: np.ndarray) -> np.ndarray:
    steps = np.hypot(*np.gradient(kelvin))
    return np.concatenate([pooled(np.minimum(steps, 2)).ravel(), [kelvin[24:40, 24:40].mean() - np.median(kelvin)]])


def footprint(film: np.ndarray) -> np.ndarray:
    over_time = np.log1p(film.mean(axis=(1, 2)))
    return np.concatenate([pooled(np.log1p(film[-1])).ravel(), 4 * over_time])


def evoked(volts: np.ndarray) -> np.ndarray:
    return volts.reshape(128, 20, 25).mean(axis=2)


def moments(motion: np.ndarray) -> np.ndarray:
    squeezed = np.arcsinh(motion).reshape(6, 40, 64)
    return np.concatenate([squeezed.mean(axis=2), squeezed.std(axis=2), np.abs(squeezed).max(axis=2)])


@pytest.mark.parametrize(
    ("sensor", "feature", "label", "shrink", "least"),
    [
        ("image", pooled, "shape", 0.3, 0.35),
        ("depth", disparity, "shape", 0.1, 0.60),
        ("point_cloud", heights_and_radii, "shape", 0.1, 0.85),
        ("eeg", evoked, "shape", 1.0, 0.30),
        ("tactile", grain, "material", 0.02, 0.40),
        ("audio", spectrogram, "material", 0.1, 0.55),
        ("thermal", warmth, "shape", 0.1, 0.45),
        ("imu", moments, "shape", 0.1, 0.50),
        ("imu", moments, "material", 0.1, 0.30),
        ("pressure", footprint, "shape", 0.1, 0.35),
        ("pressure", footprint, "material", 0.1, 0.20),
    ],
)
def test_signals_carry_their_label(sensor: str, feature: object, label: str, shrink: float, least: float) -> None:
    measured, things = labelled()
    rows = [feature(arrays[sensor]) for arrays in measured]  # type: ignore[operator]
    found = accuracy(rows, [getattr(thing, label) for thing in things], shrink)
    assert found >= least, f"{found:.2f}"

"""Point clouds: the published preprocessing and ModEmbeds to the last digit, exact sampling, and readers that never guess."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.golden import POINT_BERT, POINT_NET, REFERENCE, arrays, batch, module, official_state
from vitlens.errors import InputError, OptionError
from vitlens.modalities import point_sampling
from vitlens.modalities.point_cloud import PointCloud
from vitlens.modalities.point_sampling import ball_query, farthest_point_sample, gather_points, knn_groups
from vitlens.modality import Sample

inputs = module("golden_preproc_formula/inputs")
small = PointCloud(points=128, groups=16, group_size=8, encoder_width=16)
RGB = ("red", "green", "blue")


def cloud(n: int = 200, seed: int = 0, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).random((n, columns)).astype(np.float32)


def textbook_fps(xyz: np.ndarray, count: int, start: int = 0) -> list[int]:
    distance, chosen = np.full(len(xyz), np.inf, np.float32), [start]
    while len(chosen) < count:
        distance = np.minimum(distance, ((xyz - xyz[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return chosen


# --- preprocessing ---


def test_a_large_cloud_is_sampled_then_normalised_as_published() -> None:
    sample = PointCloud().read(inputs.cloud(12000))
    with np.load(REFERENCE / "golden_preproc_formula" / "pc_12000.npz") as golden:
        chosen = farthest_point_sample(torch.from_numpy(sample.data)[None], 8192)[0]
        np.testing.assert_array_equal(chosen.numpy(), golden["idx_u16"])
        np.testing.assert_allclose(PointCloud().transform(sample)[::8].numpy(), golden["points"], atol=2e-6)


def test_a_small_cloud_is_normalised_as_published_and_repeated_to_the_fixed_shape() -> None:
    sample = PointCloud().read(inputs.cloud(3000))
    kept = PointCloud(upsample=False).transform(sample)
    with np.load(REFERENCE / "golden_preproc_formula" / "pc_3000.npz") as golden:
        np.testing.assert_allclose(kept[::8].numpy(), golden["normalised_unshuffled"], atol=2e-6)
    full = PointCloud().transform(sample)
    assert full.shape == (8192, 3)
    assert torch.equal(full[:3000], kept)
    order = textbook_fps(kept.numpy(), 3000)
    assert torch.equal(full[3000:6000], kept[order])
    assert torch.equal(full[6000:], kept[order[:2192]])


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 1e6, 1e25])
def test_the_unit_of_length_does_not_matter(scale: float) -> None:
    xyz = cloud(300).astype(np.float64)
    np.testing.assert_allclose(small.transform(small.read(xyz * scale)), small.transform(small.read(xyz)), atol=1e-4)


def test_positions_in_metres_of_a_map_keep_their_millimetres() -> None:
    xyz = cloud(100).astype(np.float64)
    far = small.read(xyz + np.array([500_000, 5_400_000, 300]))
    np.testing.assert_allclose(far.data + np.array(far.info["origin"]) - np.array([500_000, 5_400_000, 300]), xyz, atol=1e-6)
    assert "subtracted" in small.describe(far)["origin"]


@pytest.mark.parametrize("old", "xyz")
@pytest.mark.parametrize("new", "xyz")
def test_the_up_axis_is_turned_not_mirrored(old: Any, new: Any) -> None:
    corners = np.concatenate([np.eye(3), -np.eye(3)])  # centred, radius 1: nothing but the turn happens
    model = PointCloud(up=new, upsample=False, points=16, groups=1, group_size=1)
    turned = model.transform(model.read(corners, up=old))[:3].double()
    assert torch.equal(turned["xyz".index(old)], torch.eye(3).double()["xyz".index(new)])
    assert float(torch.linalg.det(turned)) == pytest.approx(1)


def test_mirroring_after_the_turn_is_openshapes_swap_of_y_and_z() -> None:
    xyz = cloud(100)
    options: dict[str, Any] = {"points": 128, "groups": 16, "upsample": False, "group_size": 8}
    swapped = PointCloud(**options).transform(small.read(xyz[:, [0, 2, 1]]))
    turned_and_mirrored = PointCloud(**options, up="z", mirror="y")
    assert torch.equal(turned_and_mirrored.transform(small.read(xyz, up="y")), swapped)
    assert torch.equal(turned_and_mirrored._cloud(small.read(xyz, up="y")), torch.from_numpy(xyz[:, [0, 2, 1]]))
    coloured = PointCloud(**options, mirror="x", color=True).transform(small.read(np.c_[xyz, xyz]))
    plain = PointCloud(**options).transform(small.read(xyz))
    assert torch.equal(coloured, torch.cat([plain * torch.tensor([-1.0, 1, 1]), torch.from_numpy(xyz)], dim=1))
    assert any("y is flipped" in step for step in turned_and_mirrored.steps())
    assert not any("flipped" in step for step in small.steps())


def test_an_unknown_up_axis_is_left_alone() -> None:
    xyz = cloud(100)
    for up in ("x", "y", "z"):
        model = PointCloud(up=up, points=128, groups=16)
        assert torch.equal(model.transform(model.read(xyz)), small.transform(small.read(xyz)))


def test_colours_pass_unchanged_grey_stands_in_and_a_colourless_model_drops_them() -> None:
    coloured = PointCloud(points=128, groups=16, color=True)
    with_rgb, without = small.read(cloud(100, columns=6)), small.read(cloud(100))
    assert torch.equal(coloured.transform(with_rgb)[:100, 3:], torch.from_numpy(with_rgb.data[:, 3:]))
    assert torch.equal(coloured.transform(without)[:, 3:], torch.full((128, 3), 0.4))
    assert torch.equal(small.transform(with_rgb), coloured.transform(with_rgb)[:, :3])


@pytest.mark.parametrize("n", [90, 500])
def test_augmentation_varies_with_the_seed_and_keeps_the_object_upright(n: int) -> None:
    model, sample = PointCloud(points=128, groups=16, color=True), small.read(cloud(n, columns=6))
    seen = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seen.append(model.transform(sample, train=True))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert seen[0].shape == (128, 6)
    flat = PointCloud(points=128, groups=16)
    plate = flat.read(cloud(n) * np.array([1, 0.001, 1], np.float32))
    assert float(flat.transform(plate, train=True)[:, 1].abs().max()) < 0.06  # only the jitter of 0.05 leaves the plane
    assert torch.equal(flat.transform(plate), flat.transform(plate))


@pytest.mark.parametrize(
    "data",
    [np.zeros((50, 3)), np.full((50, 3), np.nan), np.zeros((50, 4)), np.zeros(9), np.zeros((0, 3))],
    ids=["one place", "nan", "four columns", "flat", "empty"],
)
def test_a_hand_made_sample_is_checked_too(data: np.ndarray) -> None:
    with pytest.raises(InputError, match="by hand"):
        small.transform(Sample(data.astype(np.float32), "by hand"))


def test_too_few_points_for_one_group_are_refused_when_they_may_not_be_repeated() -> None:
    with pytest.raises(InputError, match="n of 32 or more"):
        PointCloud(upsample=False).transform(small.read(cloud(31)))


@pytest.mark.parametrize(
    "options",
    [
        {"up": "w"},
        {"mirror": "w"},
        {"tokenizer": "patch"},
        {"points": 0},
        {"points": 100},
        {"groups": True},
        {"radius": -1.0},
        {"color": "yes"},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="point_cloud"):
        PointCloud(**options)


# --- sampling ---


@pytest.mark.parametrize("kind", ["ball", "lattice", "clusters", "duplicates", "line", "one", "huge"])
def test_farthest_points_are_the_textbook_loops(kind: str) -> None:
    random = np.random.default_rng(1)
    lattice = np.stack(np.meshgrid(*[np.arange(7.0)] * 3), axis=-1).reshape(-1, 3)  # nothing but ties
    xyz = {
        "ball": random.normal(size=(2000, 3)),
        "lattice": random.permutation(lattice),
        "clusters": random.normal(size=(700, 3)) * 1e-4 + random.integers(0, 3, (700, 1)) * 50,
        "duplicates": np.repeat(random.normal(size=(40, 3)), 8, axis=0),
        "line": np.linspace(0, 1, 300)[:, None] * [1, 0, 0],
        "one": np.ones((1, 3)),
        "huge": random.normal(size=(300, 3)) * 1e15,
    }[kind].astype(np.float32)
    count = len(xyz) + 3  # the loop goes on when every point is chosen
    for start in {0, len(xyz) // 2, len(xyz) - 1}:
        want = textbook_fps(xyz, count, start)
        assert farthest_point_sample(torch.from_numpy(xyz)[None], count, start)[0].tolist() == want
        assert point_sampling._torch_fps(torch.from_numpy(xyz)[None], min(count, 300), start)[0].tolist() == want[:300]


def test_neighbours_and_balls_are_those_of_a_full_search_in_every_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    xyz = torch.from_numpy(np.stack([cloud(500, seed) for seed in range(3)]))
    centres = torch.cat([xyz[:, :20], torch.full((3, 1, 3), 5.0)], dim=1)  # the last one is far from every point
    distance = (centres[:, :, None] - xyz[:, None]).square().sum(dim=-1)
    nearest = distance.argsort(dim=-1)[..., :12]
    monkeypatch.setattr(point_sampling, "_CHUNK", 500 * 21)  # one cloud at a time in the torch version
    for knn in (knn_groups, point_sampling._torch_knn):
        assert torch.equal(knn(xyz, centres, 12), nearest)
    for ball in (ball_query, point_sampling._torch_ball):
        found = ball(xyz, centres, 0.25, 12)
        for b in range(3):
            assert found[b, 20].tolist() == [nearest[b, 20, 0]] * 12
            for g in range(20):
                inside = (distance[b, g] <= 0.25**2).nonzero()[:12, 0].tolist()
                assert found[b, g].tolist() == inside + inside[:1] * (12 - len(inside))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: farthest_point_sample(x, 0),
        lambda x: farthest_point_sample(x, 3, start=4),
        lambda x: farthest_point_sample(x[0], 3),
        lambda x: knn_groups(x, x, 5),
        lambda x: ball_query(x, x, 0.0, 2),
    ],
)
def test_impossible_sampling_is_refused(call: Any) -> None:
    with pytest.raises(ValueError, match="found"):
        call(torch.zeros(2, 4, 3))


def exported_and_own(export: Any) -> tuple[torch.Tensor, torch.Tensor]:
    embed = small.build_embed(24, None).eval()  # type: ignore[arg-type]
    one, other = (torch.from_numpy(np.stack([cloud(128, seed), cloud(128, seed + 1)])) for seed in (0, 5))
    with torch.no_grad():
        return export(embed, (one,))(other), embed(other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_model_samples_each_input_anew() -> None:
    torch.testing.assert_close(*exported_and_own(lambda embed, inputs: torch.jit.trace(embed, inputs, check_trace=False)))


@pytest.mark.slow
def test_an_exported_model_samples_each_input_anew() -> None:
    torch.testing.assert_close(*exported_and_own(lambda embed, inputs: torch.export.export(embed, inputs).module()))


# --- ModEmbeds ---


def published(embed: torch.nn.Module, case: str) -> torch.nn.Module:
    prefix = {"pc": "visual.visual_adapter.", "pc_pnsa": "backbone.visual_adapter."}[case]
    state = {key.removeprefix(prefix): value for key, value in official_state(case).items() if key.startswith(prefix)}
    embed.load_state_dict(state, strict=True)
    return embed.eval()


def close(found: torch.Tensor, want: np.ndarray) -> None:
    assert float((found - torch.from_numpy(want)).abs().max()) < 1e-4 * np.abs(want).max()


def test_point_bert_tokens_are_the_published_ones() -> None:
    golden, x = arrays("pc"), batch("pc")
    embed = published(PointCloud(**POINT_BERT).build_embed(96, None), "pc")  # type: ignore[arg-type]
    with torch.no_grad():
        tokens, positions = embed.split(x)  # type: ignore[operator]
    close(tokens[:, ::16], golden["tok_x"])
    close(positions[:, ::16], golden["tok_pos"])
    centres = gather_points(x, farthest_point_sample(x, 128))
    np.testing.assert_array_equal(centres[:, ::16].numpy(), golden["centers"])
    groups = knn_groups(x, centres, 32).sort(dim=-1).values
    np.testing.assert_array_equal(groups[:, ::16].numpy(), golden["knn_idx_sorted"])


def test_point_net_tokens_are_the_published_ones() -> None:
    golden, x = arrays("pc_pnsa"), batch("pc_pnsa")
    embed = published(PointCloud(**POINT_NET).build_embed(64, None), "pc_pnsa")  # type: ignore[arg-type]
    with torch.no_grad():
        tokens, positions = embed.split(x)  # type: ignore[operator]
    assert positions is None
    close(tokens[:, ::16], golden["tok_x"])
    chosen = farthest_point_sample(x[..., :3], 128)
    np.testing.assert_array_equal(chosen.numpy(), golden["fps_idx"])
    balls = ball_query(x[..., :3], gather_points(x[..., :3], chosen), 0.2, 64)
    np.testing.assert_array_equal(balls[:, ::16].numpy(), golden["ball_idx"])


@pytest.mark.parametrize(
    ("file", "options", "width"),
    [
        ("keys_train_pc_shapenet", {}, 384),
        ("keys_vitlensG_openshape_all", {"tokenizer": "pnsa", "color": True, "group_size": 64}, 256),
    ],
)
def test_full_size_parameters_are_named_and_shaped_as_released(file: str, options: dict[str, Any], width: int) -> None:
    keys = json.loads((REFERENCE / f"{file}.json").read_text())["keys"]
    released = {key.split("visual_adapter.")[1]: shape for key, (shape, _) in keys.items() if "visual_adapter." in key}
    embed = PointCloud(**options).build_embed(width, None)  # type: ignore[arg-type]
    assert {key: list(value.shape) for key, value in embed.state_dict().items()} == released


@pytest.mark.parametrize("tokenizer", ["pointbert", "pnsa"])
@pytest.mark.parametrize("color", [False, True])
def test_low_precision_weights_still_group_in_float32(tokenizer: Any, color: bool) -> None:
    torch.manual_seed(0)
    model = PointCloud(points=512, groups=32, group_size=16, encoder_width=32, tokenizer=tokenizer, color=color)
    embed = model.build_embed(24, None).eval()  # type: ignore[arg-type]
    # points so close together that bfloat16 would merge them
    x = torch.from_numpy(cloud(512, columns=6 if color else 3))[None]
    x[..., :3] = 0.9 + x[..., :3] * 0.01
    with torch.no_grad():
        full = embed(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = embed(x)
        low = embed.to(torch.bfloat16)(x)
    assert full.shape == (1, 32, 24)
    assert low.dtype == torch.bfloat16
    for other in (mixed, low):
        assert torch.nn.functional.cosine_similarity(full, other.float(), dim=-1).min() > 0.999


# --- reading: every format gives back the same points ---


def table(xyz: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    fields = [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in RGB]
    out = np.empty(len(xyz), fields)
    for i, name in enumerate("xyz"):
        out[name] = xyz[:, i]
    for i, name in enumerate(RGB):
        out[name] = rgb[:, i]
    return out


def lzf(content: bytes) -> bytes:
    """A simple LZF compressor: literal runs, and one copy wherever the next 3 to 264 bytes repeat the one before."""
    out, i, literal = b"", 0, b""

    def flush() -> bytes:
        return b"".join(bytes([len(literal[j : j + 32]) - 1]) + literal[j : j + 32] for j in range(0, len(literal), 32))

    while i < len(content):
        run = 0
        while i > 0 and run < 264 and i + run < len(content) and content[i + run] == content[i - 1]:
            run += 1
        if run >= 3:
            out, literal = out + flush(), b""
            out += bytes([(run - 2) << 5, 0]) if run < 9 else bytes([7 << 5, run - 9, 0])
            i += run
        else:
            literal += content[i : i + 1]
            i += 1
    return out + flush()


def pcd(xyz: np.ndarray, rgb: np.ndarray, data: str) -> bytes:
    packed = (rgb.astype(np.uint32) << [16, 8, 0]).sum(axis=1).astype(np.uint32)
    head = f"VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH {len(xyz)}\nHEIGHT 1\n"
    head += f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(xyz)}\nDATA {data}\n"
    columns = [xyz[:, 0], xyz[:, 1], xyz[:, 2], packed.view(np.float32)]
    if data == "ascii":
        rows = "\n".join(f"{x:.9g} {y:.9g} {z:.9g} {c}" for (x, y, z), c in zip(xyz, packed, strict=True))
        return (head + rows + "\n").encode()
    if data == "binary":
        return head.encode() + np.stack(columns, axis=1).astype("<f4").tobytes()
    plain = np.stack(columns).astype("<f4").tobytes()
    content = lzf(plain)
    return head.encode() + struct.pack("<II", len(content), len(plain)) + content


def ply(xyz: np.ndarray, rgb: np.ndarray, kind: str) -> bytes:
    lines = ["ply", f"format {kind} 1.0", "comment of no use", "element camera 1", "property int id"]
    lines += [f"element vertex {len(xyz)}", *(f"property float {a}" for a in "xyz"), *(f"property uchar {c}" for c in RGB)]
    head = "\n".join([*lines, "end_header\n"]).encode()
    if kind == "ascii":
        rows = (" ".join([*(f"{v:.9g}" for v in p), *map(str, c)]) for p, c in zip(xyz, rgb, strict=True))
        return head + ("7\n" + "\n".join(rows) + "\n").encode()
    order = ">" if "big" in kind else "<"
    cells = table(xyz, rgb)
    if order == ">":
        cells = cells.astype([(name, cells.dtype[name].newbyteorder(">")) for name in cells.dtype.names or ()])
    return head + struct.pack(f"{order}i", 7) + cells.tobytes()


def las(xyz: np.ndarray, rgb: np.ndarray | None, point_format: int, suffix: str, folder: Path) -> bytes:
    import laspy

    header = laspy.LasHeader(point_format=point_format, version="1.4" if point_format >= 6 else "1.2")
    header.scales, header.offsets = np.full(3, 1e-7), np.array([10.0, 20.0, 30.0])
    cells = laspy.LasData(header)
    cells.x, cells.y, cells.z = (xyz.astype(float) + header.offsets).T
    if rgb is not None:
        cells.red, cells.green, cells.blue = rgb.T
    cells.write(folder / f"written.{suffix}")
    return (folder / f"written.{suffix}").read_bytes()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**named: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **named)
    return file.getvalue()


def text(xyz: np.ndarray, rgb: np.ndarray, mark: str, header: str = "") -> bytes:
    rows = (mark.join([*(f"{v:.9g}" for v in p), *map(str, c)]) for p, c in zip(xyz, rgb, strict=True))
    return (header + "\n".join(rows) + "\n").encode()


XYZ = cloud(80, seed=4)
XYZ[:, 1] = 0.25  # runs that LZF compresses
BYTES = np.random.default_rng(4).integers(0, 256, (80, 3)).astype(np.uint8)
FILES = {
    "a.npy": npy(np.concatenate([XYZ, (BYTES / 255).astype(np.float32)], axis=1)),
    "a.npz": npz(points=np.concatenate([XYZ, (BYTES / 255).astype(np.float32)], axis=1)),
    "spaces.txt": text(XYZ, BYTES, " ", "# x y z r g b\n"),
    "commas.xyz": text(XYZ, BYTES, ",", "x,y,z,r,g,b\n"),
    "semicolons.txt": text(XYZ, BYTES, ";", "//X;Y;Z;R;G;B\n"),
    **{f"{kind}.ply": ply(XYZ, BYTES, kind) for kind in ("ascii", "binary_little_endian", "binary_big_endian")},
    **{f"{kind}.pcd": pcd(XYZ, BYTES, kind) for kind in ("ascii", "binary", "binary_compressed")},
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_points_and_colours(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    sample = small.read(path)
    assert sample.data.dtype == np.float32
    np.testing.assert_allclose(sample.data[:, :3], XYZ, atol=1e-7)
    np.testing.assert_allclose(sample.data[:, 3:], BYTES / 255, atol=1e-6)
    with path.open("rb") as file:
        np.testing.assert_array_equal(small.read(file).data, sample.data)
    np.testing.assert_array_equal(small.read(FILES[name], format=path.suffix[1:]).data, sample.data)
    assert small.describe(sample)["format"] == path.suffix[1:]


def fields(names: str, rows: str) -> bytes:
    lines = "".join(f"property {name}\n" for name in names.split(", "))
    return f"ply\nformat ascii 1.0\nelement vertex 2\n{lines}end_header\n{rows}\n".encode()


@pytest.mark.parametrize(
    ("names", "rows", "data"),
    [
        ("double x, double y, double z", "500000.125 1 2\n500001 4 5", [[-0.4375, -1.5, -1.5], [0.4375, 1.5, 1.5]]),
        ("double x, float y, int z", "0 1.5 2\n3 4 5", [[0, 1.5, 2], [3, 4, 5]]),
        ("float Z, float y, float x", "3 2 1\n6 5 4", [[1, 2, 3], [4, 5, 6]]),
        ("float x, float y, float z, float red, float green, float blue", "0 0 0 0 0.5 1\n1 1 1 0 0 0", [0, 0.5, 1]),
        ("float x, float y, float z, ushort red, ushort green, ushort blue", "0 0 0 0 0 0\n1 1 1 0 255 51", [0, 0, 0]),
        ("float x, float y, float z, uchar r, uchar g, uchar b, uchar alpha", "0 0 0 255 51 0 9\n1 1 1 0 0 0 9", [1, 0.2, 0]),
        ("float x, float y, float z, float nx, uchar diffuse_red, uchar diffuse_green, uchar diffuse_blue",
         "0 0 0 1 255 51 0\n1 1 1 1 0 0 0", [1, 0.2, 0]),
    ],
)  # fmt: skip
def test_ply_fields_of_any_type_and_usual_name(names: str, rows: str, data: list[Any]) -> None:
    sample = small.read(fields(names, rows), format="ply")
    if isinstance(data[0], list):
        np.testing.assert_allclose(sample.data, data, atol=1e-6)
    else:
        np.testing.assert_allclose(sample.data[0, 3:], data, atol=1e-6)


def test_pcd_with_the_padding_that_pcl_writes_and_with_doubles() -> None:
    padded = [("xyz", "<f4", 3), ("_", "u1", 4), ("rgb", "<u4"), ("__", "u1", 12)]
    table_ = np.zeros(80, padded)
    table_["xyz"], table_["rgb"] = XYZ, (BYTES.astype(np.uint32) << [16, 8, 0]).sum(axis=1)
    head = "VERSION 0.7\nFIELDS x y z _ rgb _\nSIZE 4 4 4 1 4 1\nTYPE F F F U F U\nCOUNT 1 1 1 4 1 12\nWIDTH 80\nHEIGHT 1\n"
    content = f"{head}VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 80\nDATA binary\n".encode() + table_.tobytes()
    np.testing.assert_allclose(small.read(content, format="pcd").data, np.c_[XYZ, BYTES / 255], atol=1e-6)
    head = "FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nWIDTH 2\nHEIGHT 1\nPOINTS 2\nDATA ascii\n"
    far = small.read(f"{head}500000.125 0 0\n500001 1 1\n".encode(), format="pcd")
    np.testing.assert_allclose(far.data[:, 0] + far.info["origin"][0], [500000.125, 500001], atol=1e-9)


@pytest.mark.parametrize("point_format", [0, 2, 3, 6, 7])
def test_las_has_z_up_and_colours_of_16_bits_or_8(point_format: int, tmp_path: Path) -> None:
    coloured = point_format in (2, 3, 7)
    for full in (65535, 255):
        rgb = (BYTES.astype(np.uint16) * (full // 255)) if coloured else None
        sample = small.read(las(XYZ, rgb, point_format, "las", tmp_path), format="las")
        np.testing.assert_allclose(sample.data[:, :3] - np.array([10, 20, 30]), XYZ, atol=1e-5)
        assert sample.info["up"] == "z"
        assert sample.data.shape[1] == (6 if coloured else 3)
        if coloured:
            np.testing.assert_allclose(sample.data[:, 3:], BYTES / 255, atol=1e-6)
    if coloured:
        black = las(XYZ, np.zeros_like(BYTES, np.uint16), point_format, "las", tmp_path)
        assert small.read(black, format="las").data.shape[1] == 3


def test_laz_equals_las_and_a_damaged_one_does_not_end_the_process(tmp_path: Path) -> None:
    rgb = BYTES.astype(np.uint16) * 257
    content = las(XYZ, rgb, 7, "laz", tmp_path)
    plain = las(XYZ, rgb, 7, "las", tmp_path)
    np.testing.assert_array_equal(small.read(content, format="laz").data, small.read(plain, format="las").data)
    # the number of chunks, at which the decompressor asks for 64 GiB and aborts
    table_at = struct.unpack_from("<q", content, struct.unpack_from("<I", content, 96)[0])[0]
    broken = content[: table_at + 4] + b"\xff\xff\xff\xf0" + content[table_at + 8 :]
    with pytest.raises(InputError, match=r"damaged|cut short"):
        small.read(broken, format="laz")


# --- reading: meshes ---


@pytest.fixture(scope="module")
def globe() -> Any:
    """A sphere whose colours are its coordinates, so that every sampled point tells what its colour must be."""
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.visual.vertex_colors = np.c_[(mesh.vertices + 1) * 127.5, np.full(len(mesh.vertices), 255)].astype(np.uint8)
    return mesh


@pytest.mark.parametrize("kind", ["ply", "obj", "glb", "gltf", "stl", "off"])
def test_meshes_are_sampled_evenly_and_always_alike(kind: str, globe: Any, tmp_path: Path) -> None:
    if kind == "gltf":
        for name, content in globe.export(file_type="gltf").items():
            (tmp_path / name).write_bytes(content)
        path = tmp_path / "model.gltf"
    else:
        path = tmp_path / f"globe.{kind}"
        globe.export(path)
    model = PointCloud(points=2000)
    sample = model.read(path)
    xyz = sample.data[:, :3]
    assert len(xyz) == 2500
    np.testing.assert_array_equal(model.read(path).data, sample.data)
    np.testing.assert_allclose(np.linalg.norm(xyz, axis=1), 1, atol=0.02)
    np.testing.assert_allclose((xyz > 0).mean(axis=0), 0.5, atol=0.05)
    assert sample.info["up"] == ("y" if kind in ("glb", "gltf") else None)
    assert sample.data.shape[1] == (3 if kind in ("stl", "off") else 6)
    np.testing.assert_allclose(sample.data[:, 3:] * 2 - 1, xyz[:, : sample.data.shape[1] - 3], atol=0.02)
    assert "1,280 faces" in model.describe(sample)["mesh"]


def test_a_textured_scene_keeps_places_areas_and_colours(tmp_path: Path) -> None:
    import trimesh
    from PIL import Image

    half = np.zeros((64, 64, 3), np.uint8)
    half[:, :32], half[:, 32:] = (255, 0, 0), (0, 0, 255)
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(half))
    visual = trimesh.visual.TextureVisuals(uv=corners[:, :2], material=material)
    quad = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    scene = trimesh.Scene(quad)
    far = trimesh.transformations.translation_matrix([10, 0, 0])
    scene.add_geometry(trimesh.Trimesh(corners * [1, 3, 1], [[0, 1, 2], [0, 2, 3]]), transform=far)
    scene.export(tmp_path / "scene.glb")
    sample = PointCloud(points=2000).read(tmp_path / "scene.glb")
    plain = sample.data[:, 0] > 5
    assert plain.mean() == pytest.approx(0.75, abs=0.01)  # three times the area
    np.testing.assert_allclose(sample.data[plain, 3:], 0.4, atol=0.001)
    left = ~plain & (sample.data[:, 0] < 0.45)
    np.testing.assert_allclose(sample.data[left, 3:], np.tile([1, 0, 0], (left.sum(), 1)), atol=0.01)


def test_meshes_without_area_or_faces_give_their_vertices() -> None:
    line = b"OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n"
    assert small.read(line, format="off").data.tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    assert small.read(b"v 0 0 0 1 0 0\nv 1 0 0 0 1 0\n", format="obj").data.tolist() == [[0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]]
    joined = b"OFF4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"  # ModelNet40 has such headers
    assert small.read(joined, format="off").data.shape == (160, 3)


# --- reading: what is refused, and how ---


def array(kind: str) -> np.ndarray | torch.Tensor:
    return {
        "integers": lambda: np.c_[cloud() * 100, cloud() * 255].astype(np.int32),
        "bytes in floats": lambda: np.c_[cloud(), cloud() * 255],
        "normals": lambda: np.c_[cloud(), cloud() * 2 - 1],
        "nan": lambda: np.where(np.arange(600).reshape(200, 3) == 7, np.nan, cloud()),
        "infinite": lambda: np.where(np.arange(600).reshape(200, 3) == 7, np.inf, cloud()),
        "four columns": lambda: cloud(columns=4),
        "transposed": lambda: cloud().T,
        "flat": lambda: cloud().ravel(),
        "batch": lambda: cloud()[None],
        "empty": lambda: cloud(0),
        "one place": lambda: np.ones((50, 3)),
        "objects": lambda: cloud().astype(object),
        "complex": lambda: cloud().astype(complex),
        "words": lambda: cloud().astype(str),
        "truth": lambda: cloud() > 0.5,
        "absurd": lambda: np.broadcast_to(np.float32(1), (10**12, 3)),
        "astronomic": lambda: cloud().astype(float) * 1e40,
        "bright": lambda: np.c_[cloud() * 100, cloud() * 60000].astype(np.int64),
        "sparse": lambda: torch.from_numpy(cloud()).to_sparse(),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("bytes in floats", "rgb_max=255"),
        ("bright", "rgb_max=65535"),
        ("normals", "probably normals.*columns='xyznormal'"),
        ("nan", "1 of 600 values are NaN"),
        ("infinite", "infinite"),
        ("four columns", r"shape \[200, 4\].*columns='xyz'"),
        ("transposed", "transposed"),
        ("flat", r"shape \[600\]"),
        ("batch", r"shape \[1, 200, 3\]"),
        ("empty", "no points"),
        ("one place", "all 50 points in one place"),
        ("objects", "object"),
        ("complex", "complex"),
        ("words", "<U"),
        ("truth", "bool"),
        ("absurd", "1,000,000,000,000 points"),
        ("astronomic", "coordinates up to"),
        ("sparse", "cannot be decoded"),
    ],
)
def test_arrays_that_are_no_cloud_are_refused_by_name(kind: str, found: str) -> None:
    with pytest.raises(InputError, match=found) as caught:
        small.read(array(kind))
    assert caught.value.source.startswith("<array")
    assert caught.value.accepted.startswith(PointCloud.accepts)


def test_saying_what_the_columns_are_settles_it() -> None:
    np.testing.assert_allclose(small.read(array("integers")).data[:, 3:], np.floor(cloud() * 255) / 255, atol=1e-6)
    np.testing.assert_allclose(small.read(array("bytes in floats"), rgb_max=255).data[:, 3:], cloud(), atol=1e-6)
    np.testing.assert_allclose(small.read(array("normals"), columns="xyznormal").data, cloud())
    np.testing.assert_allclose(small.read(array("normals"), columns="xyz").data, cloud())
    np.testing.assert_allclose(small.read(array("four columns"), columns="xyz").data, cloud(columns=4)[:, :3])
    tensor = torch.from_numpy(cloud(columns=6))
    np.testing.assert_array_equal(small.read(tensor.requires_grad_()).data, tensor.detach().numpy())
    assert small.read(tensor.bfloat16()).data.dtype == np.float32


@pytest.mark.parametrize(
    "options", [{"up": "north"}, {"rgb_max": 0}, {"rgb_max": True}, {"columns": "rgbxyz"}, {"format": "docx"}], ids=str
)
def test_impossible_read_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        small.read(cloud(), **options)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("empty.ply", b"", "empty file"),
        ("wrong.ply", b"solid cube", "not a PLY file"),
        ("header.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", "damaged header"),
        ("absurd.ply", FILES["ascii.ply"].replace(b"vertex 80", b"vertex 80000000"), "80,000,000 points"),
        ("none.ply", FILES["ascii.ply"].replace(b"vertex 80", b"vertex 0"), "no points"),
        ("fields.pcd", FILES["ascii.pcd"].replace(b"FIELDS x", b"FIELDS u"), "no x, y, z"),
        ("absurd.pcd", FILES["binary.pcd"].replace(b" 80\n", b" 80000000\n"), "80,000,000 points"),
        ("damaged.pcd", FILES["binary_compressed.pcd"][:-20], "cut short or damaged"),
        ("row.ply", FILES["ascii.ply"].replace(b" 0.25 ", b" ", 1), "unequal length"),
        ("word.ply", FILES["ascii.ply"].replace(b" 0.25 ", b" zero ", 1), "cannot be decoded"),
        ("end.ply", FILES["ascii.ply"].replace(b" 241 225\n", b" 241 225q\n", 1), "cannot be decoded"),
        ("row.pcd", FILES["ascii.pcd"].replace(b" 0.25 ", b" ", 1), "cut short or damaged"),
        ("word.pcd", FILES["ascii.pcd"].replace(b" 0.25 ", b" zero ", 1), "cannot be decoded"),
        ("rows.pcd", b"".join(FILES["ascii.pcd"].splitlines(keepends=True)[:-1]), "cut short"),
        ("short.pcd", FILES["binary.pcd"][:-1], "cut short"),
        ("words.txt", b"once upon a time\n" * 200, "no line of numbers"),
        ("ragged.txt", b"1 2 3\n4 5\n", "no table of numbers"),
        ("two.txt", b"1 2\n3 4\n", r"shape \[2, 2\]"),
        ("pickled.npy", npy(np.array([{"xyz": 1}])), "cannot be decoded"),
        ("several.npz", npz(a=XYZ, b=XYZ), "say which with key="),
        ("cut.off", b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n", "cut short"),
        ("indices.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n1 1 0\n3 0 1 9\n", "not among its 3"),
        ("nan.off", b"OFF\n3 1 0\nnan 0 0\n1 0 0\n1 1 0\n3 0 1 2\n", "NaN"),
        ("cut.stl", b"solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\n", "cut short"),
        ("wrong.las", b"LASF" + bytes(500), "damaged header"),
        ("wrong.laz", b"solid cube", "not a LAS file"),
        ("cloud.docx", b"PK", "type .docx"),
    ],
)
def test_files_that_are_no_cloud_are_refused_by_name(name: str, content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=found) as caught:
        small.read(tmp_path / name)
    assert caught.value.source == str(tmp_path / name)


def test_a_las_file_cut_short_says_so(tmp_path: Path) -> None:
    content = las(XYZ, None, 0, "las", tmp_path)
    for cut in (content[:-1], content[: -20 * 40], content[:100]):
        with pytest.raises(InputError, match="cut short"):
            small.read(cut, format="las")


def test_damaged_files_leave_the_terminal_alone(capfd: pytest.CaptureFixture[str]) -> None:
    packed = FILES["binary_compressed.pcd"]
    for kind, content in (
        ("pcd", packed[:-300] + bytes(300)),
        ("ply", FILES["binary_little_endian.ply"][:-5]),
        ("las", b"LASF" + bytes(400)),
    ):
        with pytest.raises(InputError):
            small.read(content, format=kind)
    assert capfd.readouterr() == ("", "")


def test_missing_files_folders_and_other_things_are_refused(tmp_path: Path) -> None:
    for source, found in (
        (tmp_path / "none.ply", "no such file"),
        (tmp_path, "a folder"),
        ([[0, 0, 0]], "a list"),
        (b"ply", "not known"),
    ):
        with pytest.raises(InputError, match=found):
            small.read(source)


def test_one_array_of_several_is_named() -> None:
    np.testing.assert_array_equal(small.read(npz(a=XYZ, b=XYZ * 2), format="npz", key="b").data, XYZ * 2)


COUNTED = {name: content for name, content in FILES.items() if not name.endswith((".txt", ".xyz"))}


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(COUNTED)), part=st.floats(0, 0.999))
def test_a_file_cut_short_is_never_a_smaller_cloud(name: str, part: float) -> None:
    content = COUNTED[name].rstrip(b"\n")
    last_number = 3 if name.startswith("ascii") else 0  # text may end within its last number
    with pytest.raises(InputError):
        small.read(content[: int(part * (len(content) - last_number))], format=name.rpartition(".")[2])


@settings(deadline=None, max_examples=100)
@given(
    kind=st.sampled_from(PointCloud.extensions),
    content=st.binary(max_size=400),
    name=st.sampled_from(sorted(FILES)),
    at=st.floats(0, 1),
)
def test_wild_bytes_are_read_or_refused(kind: str, content: bytes, name: str, at: float) -> None:
    kind = kind if at < 0.3 else name.rpartition(".")[2]
    start = int(at * len(FILES[name]))
    damaged = content if at < 0.3 else FILES[name][:start] + content + FILES[name][start + len(content) :]
    try:
        sample = small.read(damaged, format=kind)
    except InputError:
        return
    assert np.isfinite(sample.data).all()
    assert sample.data.shape[1] in (3, 6)


WILD = hnp.arrays(
    dtype=st.one_of(
        hnp.floating_dtypes(sizes=(16, 32, 64)), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.complex_number_dtypes()
    ),
    shape=st.one_of(hnp.array_shapes(max_dims=3, max_side=8), st.tuples(st.integers(0, 40), st.sampled_from([3, 6]))),
)


@settings(deadline=None, max_examples=150)
@given(values=WILD)
def test_wild_arrays_are_normalised_or_refused(values: np.ndarray) -> None:
    try:
        x = small.transform(small.read(values))
    except InputError:
        return
    assert x.shape == (128, 3)
    assert float(x.norm(dim=1).max()) == pytest.approx(1, abs=1e-5)


# --- for people ---


def test_claims_go_by_the_header_not_by_the_data(tmp_path: Path) -> None:
    many, few = cloud(64), cloud(63)
    files = {
        "many.npy": (npy(many), 2),
        "colours.npz": (npz(x=cloud(64, columns=6)), 2),
        "many.txt": (b"x y z\n" + b"1 2 3\n" * 64, 2),
        "few.npy": (npy(few), 0),
        "wide.npy": (npy(cloud(64, columns=4)), 0),
        "two.npz": (npz(a=many, b=many), 0),
        "story.txt": (b"once upon a time there was a story\n" * 100, 0),
        "few.xyz": (b"1 2 3\n" * 5, 1),
        "broken.npy": (npy(many)[:20], 0),
        "broken.npz": (npz(a=many)[:50], 0),
        "any.laz": (b"?", 1),
        "picture.png": (b"?", 0),
    }
    for name, (content, claim) in files.items():
        (tmp_path / name).write_bytes(content)
        assert small.claims(tmp_path / name) == claim, name
    huge = np.lib.format.open_memmap(tmp_path / "huge.npy", mode="w+", dtype=np.float32, shape=(40_000_000, 3))
    del huge
    assert small.claims(tmp_path / "huge.npy") == 2


@pytest.mark.parametrize("up", ["z", None])
@pytest.mark.parametrize("columns", [3, 6])
def test_what_is_written_is_read_back(up: str | None, columns: int, tmp_path: Path) -> None:
    data = small.example(3).data[:, :columns]
    path = small.write(Sample(data, "mine", {"up": up}), tmp_path, "mine")
    again = small.read(path)
    np.testing.assert_array_equal(again.data, data)
    assert again.info["up"] == up


def test_the_example_and_its_drawing_show_an_upright_coloured_object() -> None:
    sample = small.example(1)
    assert sample.data.shape == (4096, 6)
    assert np.ptp(sample.data[:, 1]) > np.ptp(sample.data[:, 0])  # a chair is taller than wide
    lying = small.read(sample.data[:, [2, 0, 1]])  # without its colours, z up
    for model, drawn in ((small, sample), (PointCloud(up="z"), lying)):
        figure, axes = plt.subplots()
        model.draw(drawn, axes)
        (points,) = axes.collections
        across, upward = np.ptp(np.asarray(points.get_offsets()), axis=0)
        assert upward > across
        assert not axes.axison
        assert len(np.unique(np.asarray(points.get_facecolor()), axis=0)) > 100
        plt.close(figure)


def test_the_preprocessing_is_told_in_words() -> None:
    assert any("farthest point sampling" in step for step in small.steps())
    assert any("grey 0.4" in step for step in PointCloud(color=True).steps())

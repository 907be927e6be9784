"""The command line as a user meets it: results, messages, exit codes, pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.command_line import run
from vitlens.cli.app import app
from vitlens.modality import get_modality, list_modalities
from vitlens.space import EmbeddingSpace
from vitlens.store.files import Column, Content, load_embeddings, write_embeddings

MODEL = ["--model", "vitlens-tiny-random", "--device", "cpu"]


def refused(*arguments: object) -> str:
    """The message of a command that is refused, on standard error, in one line."""
    result = run(*arguments, code=2)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An example file of every installed modality."""
    folder = tmp_path_factory.mktemp("files")
    return {name: get_modality(name).write(get_modality(name).example(), folder, name) for name in list_modalities()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def not_blank(path: Path) -> tuple[int, int]:
    """The size of a picture, once it is seen to show something on its left and right half."""
    picture = np.asarray(Image.open(path).convert("L"), dtype=float)
    half = picture.shape[1] // 2
    assert picture[:, :half].std() > 5
    assert picture[:, half:].std() > 5
    return picture.shape[1], picture.shape[0]


def test_help_says_what_there_is_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from vitlens.cli.app import app;"
        "r = CliRunner().invoke(app, ['--help']); assert r.exit_code == 0; print(r.output);"
        "print('HEAVY', [m for m in ('torch', 'numpy', 'pandas', 'matplotlib', 'open_clip') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in out
    for command in ("embed", "classify", "similarity", "models", "modalities", "info", "doctor", "demo"):
        assert command in out


@pytest.mark.parametrize("command", ["embed", "classify", "similarity", "models", "modalities", "info"])
def test_every_command_helps_with_examples(command: str) -> None:
    assert f"vitlens {command}" in run(command, "--help").output.split("Example")[1]


def test_version() -> None:
    from importlib.metadata import version

    assert run("--version").stdout == f"vitlens {version('vitlens')}\n"


def test_embed_guesses_modalities_and_reports(files: dict[str, Path], here: Path) -> None:
    chosen = [files["audio"], files["image"], files["eeg"]]
    out = json.loads(run("embed", *chosen, "-t", "a dog", "-o", "out.parquet", *MODEL, "--json").stdout)
    assert out["counts"] == {"audio": 1, "image": 1, "eeg": 1, "text": 1}
    assert out["space"] == {"name": "vitlens-tiny-random", "dim": 64}
    assert load_embeddings(here / "out.parquet").names["text"] == ["a dog"]
    text = run("embed", files["audio"], "-o", "out.npz", *MODEL).stdout
    assert text == "out.npz: 1 audio embeddings of 64 values, space vitlens-tiny-random\n"


def test_embed_takes_a_manifest_with_read_options(files: dict[str, Path], here: Path) -> None:
    depth = np.full((40, 50), 2000, np.uint16)
    Image.fromarray(depth).save(here / "d.png")
    (here / "items.csv").write_text(f"image,depth,depth.scale\n{files['image']},d.png,0.001\n,d.png,\n")
    result = run("embed", "--manifest", "items.csv", "-o", "out.npz", *MODEL, code=1)
    assert "1 of 3 inputs failed, see out.npz.errors.csv" in result.stderr
    assert load_embeddings("out.npz").rows == {"image": [0], "depth": [0]}
    run("embed", "--manifest", "items.csv", "-o", "out.npz", "-r", "depth.scale=0.001", "--overwrite", *MODEL)
    assert load_embeddings("out.npz").rows == {"image": [0], "depth": [0, 1]}


def test_embed_lower_precision_is_close(files: dict[str, Path], here: Path) -> None:
    for dtype in ("fp32", "bf16"):
        run("embed", files["image"], "--dtype", dtype, "-o", f"{dtype}.npz", *MODEL)
    full, half = load_embeddings("fp32.npz")["image"], load_embeddings("bf16.npz")["image"]
    assert float(full[0] @ half[0]) > 0.99 and not (full == half).all()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(files: dict[str, Path], here: Path) -> None:
    shown = run("embed", files["audio"], files["image"], "--dry-run", "--model", "no-such-model", "-o", "x.npz").stdout
    assert "1 audio, 1 image to embed" in shown
    plan = json.loads(run("embed", files["audio"], "--dry-run", "--json").stdout)
    assert plan["items"] == [{"row": 0, "item": str(files["audio"]), "modality": "audio", "read_options": {}}]
    assert run("embed", "missing.wav", files["audio"], "--dry-run", code=1).stderr.strip() == "error: missing.wav: no such file"
    assert list(here.iterdir()) == []


def test_missing_and_broken_files_are_listed_and_the_exit_code_is_1(files: dict[str, Path], here: Path) -> None:
    (here / "broken.wav").write_bytes(b"RIFF rubbish")
    result = run("embed", files["audio"], "broken.wav", "gone.wav", "-o", "out.npz", *MODEL, code=1)
    assert "2 of 3 inputs failed" in result.stderr
    items = [line.split(",")[:2] for line in (here / "out.npz.errors.csv").read_text().splitlines()[1:]]
    assert items == [["broken.wav", "audio"], ["gone.wav", ""]]
    assert load_embeddings("out.npz").names == {"audio": [str(files["audio"])]}
    assert "nothing was embedded" in run("embed", "gone.wav", "-o", "none.npz", *MODEL, code=1).stderr
    assert not (here / "none.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.npz"], "nothing to read"),
        (["a.wav"], "-o FILE"),
        (["a.wav", "-o", "x.csv"], "type must be .npz, .parquet, .safetensors"),
        (["there.txt", "-o", "there.npz"], "--overwrite"),
        (["there.txt", "-o", "x.npz", "--as", "sound"], "unknown modality 'sound'"),
        (["there.txt", "-o", "x.npz", "--as", "text", "--as", "image"], "--as takes one modality"),
        (["there.txt", "-o", "x.npz", "--dtype", "fp8"], "--dtype must be fp32, bf16, fp16 or auto"),
        (["there.txt", "-o", "x.npz", "-r", "depth.scal=1"], "no read option 'scal'"),
        (["there.txt", "-o", "x.npz", "-r", "scale=1"], "MODALITY.OPTION=VALUE"),
        (["there.txt", "-o", "x.npz", "--model", "vitlens-xl"], "unknown model 'vitlens-xl'"),
        (["there.txt", "-o", "x.npz", "--device", "quantum"], "no torch device"),
        (["there.txt", "-o", "x.npz", "--device", "cuda:77"], "finds no such device"),
        (["there.md", "-o", "x.npz"], "--as MODALITY"),
        (["*.flac", "-o", "x.npz"], "no files there"),
        (["--manifest", "no.csv", "-o", "x.npz"], "no such file"),
        (["there.txt", "--manifest", "no.csv", "-o", "x.npz"], "either --manifest or files"),
    ],
)
def test_embed_refuses_wrong_usage_in_one_line(arguments: list[str], message: str, here: Path) -> None:
    (here / "there.txt").write_text("some words")
    (here / "there.md").write_text("some words")
    (here / "there.npz").write_bytes(b"x")
    model = [] if "--model" in arguments else ["--model", "vitlens-tiny-random"]
    assert message in refused("embed", *arguments, *model)
    assert not (here / "x.npz.partial").exists()


def test_wrong_numbers_are_refused(here: Path) -> None:
    assert run("embed", "a.wav", "-b", "0", "-o", "x.npz", code=2).stdout == ""
    assert run("classify", "a.wav", "--labels", "a", "--top", "0", code=2).stdout == ""


def test_debug_shows_the_traceback(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITLENS_DEBUG", "1")
    result = CliRunner().invoke(app, ["embed", "-o", "x.npz"])
    assert type(result.exception).__name__ == "OptionError"


def test_classify_gives_the_best_labels(files: dict[str, Path], here: Path) -> None:
    (here / "broken.png").write_bytes(b"rubbish")
    out = run(
        "classify", files["image"], "broken.png", "-t", "cat", "--labels", "dog, cat,car", "--top", "2", "--json", *MODEL, code=1
    )
    found = json.loads(out.stdout)
    assert [row["modality"] for row in found["results"]] == ["image", "text"]
    assert found["results"][1]["top"][0]["label"] == "cat"
    assert [len(row["top"]) for row in found["results"]] == [2, 2]
    assert [error["item"] for error in found["errors"]] == ["broken.png"]
    assert "broken.png" in out.stderr

    (here / "labels.txt").write_text("dog\n\ncat\n")
    shown = run("classify", files["image"], "--labels-file", "labels.txt", "--template", "a {}", *MODEL).stdout
    assert "dog" in shown and "cat" in shown
    assert "a label" not in shown


def test_probabilities_of_all_labels_add_up(files: dict[str, Path]) -> None:
    out = json.loads(run("classify", files["audio"], "--labels", "dog,cat,rain", "--json", *MODEL).stdout)
    probabilities = [best["probability"] for best in out["results"][0]["top"]]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert probabilities == sorted(probabilities, reverse=True)


def test_classify_needs_labels_and_braces(files: dict[str, Path], here: Path) -> None:
    assert "--labels" in refused("classify", files["image"], *MODEL)
    assert "no class name" in refused("classify", files["image"], "--labels", " , ", *MODEL)
    assert "must contain {}" in refused("classify", files["image"], "--labels", "a,b", "--template", "x", *MODEL)
    assert "no such file" in refused("classify", files["image"], "--labels-file", "none.txt", *MODEL)


def test_similarity_takes_several_files_after_with(files: dict[str, Path], here: Path) -> None:
    a, b = [files["audio"], files["image"]], [files["eeg"], files["video"]]
    out = json.loads(run("similarity", *a, "--with", *b, "--with-text", "a dog", "--json", *MODEL).stdout)
    assert out["rows"] == [str(path) for path in a]
    assert out["columns"] == [*(str(path) for path in b), "a dog"]
    assert np.array(out["cosines"]).shape == (2, 3)


def test_as_holds_after_with_only_for_files_that_it_reads(here: Path, files: dict[str, Path]) -> None:
    np.save(here / "metres.npy", np.full((40, 40), 2.0, np.float32))
    with_picture = ["similarity", "metres.npy", "--as", "depth", "--with", files["video"], "--json", *MODEL]
    assert json.loads(run(*with_picture).stdout)["columns"] == [str(files["video"])]
    both = ["similarity", "metres.npy", "--as", "depth", "--with", "metres.npy", "--json", *MODEL]
    assert json.loads(run(*both).stdout)["cosines"] == [[pytest.approx(1, abs=1e-4)]]
    np.save(here / "unclear.npy", np.zeros((4, 400), np.float32))
    assert "--as MODALITY" in refused("info", "unclear.npy")


def test_similarity_of_files_and_of_stored_embeddings_agree(files: dict[str, Path], here: Path) -> None:
    run("embed", files["audio"], files["image"], "-o", "a.safetensors", *MODEL)
    run("embed", files["image"], "-t", "a dog", "-o", "b.parquet", *MODEL)
    stored = json.loads(run("similarity", "a.safetensors", "--with", "b.parquet", "--json").stdout)
    fresh = json.loads(
        run(
            "similarity", files["audio"], files["image"], "--with", files["image"], "--with-text", "a dog", "--json", *MODEL
        ).stdout
    )
    mixed = json.loads(run("similarity", "a.safetensors", "--with", "b.parquet", "--json", *MODEL).stdout)
    assert stored["rows"] == fresh["rows"]
    np.testing.assert_allclose(stored["cosines"], fresh["cosines"], atol=1e-4)
    assert mixed == stored
    assert stored["cosines"][1][0] == pytest.approx(1, abs=1e-4)


def test_similarity_with_itself_and_its_picture(files: dict[str, Path], here: Path) -> None:
    run("embed", files["audio"], files["image"], "-t", "costs $5 or $6", "-o", "a.npz", *MODEL)
    shown = run("similarity", "a.npz", "-o", "similarity.png").stdout
    assert "1.000" in shown
    assert "costs $5 or $6" in shown
    width, height = not_blank(here / "similarity.png")
    assert width > 300 and height > 300


def test_spaces_are_not_mixed(files: dict[str, Path], here: Path) -> None:
    run("embed", files["audio"], "-o", "a.npz", *MODEL)
    other = Content(EmbeddingSpace("another", 64), "other", {"image": Column(["x.png"], [0], lambda: iter([np.ones((1, 64))]))})
    write_embeddings(here / "b.npz", other)
    for arguments in (["a.npz", "--with", "b.npz"], ["a.npz", "b.npz"], ["b.npz", "--with", files["audio"], *MODEL]):
        message = refused("similarity", *arguments)
        assert "another" in message and "vitlens-tiny-random" in message and "cannot be compared" in message


def test_similarity_refuses_what_it_cannot_do(files: dict[str, Path], here: Path) -> None:
    assert "no such file" in refused("similarity", "gone.wav", *MODEL)
    (here / "cut.npy").write_bytes(b"")
    assert refused("similarity", files["audio"], "cut.npy", *MODEL).count("Accepted") == 1
    assert "type must be" in refused("similarity", files["audio"], "-o", "x.bmp", *MODEL)
    Image.new("RGB", (30, 30)).save(here / "mine.png")
    assert "one of the inputs" in refused("similarity", "mine.png", "-o", "mine.png", *MODEL)


def test_models_lists_filters_and_shows_cards() -> None:
    assert "vitlens-l-audio" in run("models").stdout
    names = [card["name"] for card in json.loads(run("models", "--modality", "eeg", "--licence", "apache", "--json").stdout)]
    assert "vitlens-l-eeg" in names and "vitlens-b-audio" not in names
    assert json.loads(run("models", "--licence", "no such licence", "--json").stdout) == []
    shown = run("models", "vitlens-l-audio").stdout
    for word in ("26.7", "vitlensL_audio.pt", "not on this machine", "Apache-2.0", "AudioSet"):
        assert word in shown
    anchored = run("models", "vitlens-g-openshape").stdout
    for file in (
        "bigG14_sk16_openshape_all.pt (TencentARC/",
        "open_clip_pytorch_model.bin (laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)",
    ):
        assert file in anchored
    weights = json.loads(run("models", "vitlens-g-openshape", "--json").stdout)["weights"][1]
    assert (weights["file"], weights["repo"]) == ("open_clip_pytorch_model.bin", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k")
    tiny = json.loads(run("models", "vitlens-tiny-random", "--json").stdout)
    assert tiny["weights"][0]["on_this_machine"]
    assert "unknown model" in refused("models", "nope")
    assert "unknown modality" in refused("models", "--modality", "nope")


def test_modalities_lists_units_types_and_owners() -> None:
    found = {known["name"]: known for known in json.loads(run("modalities", "--json").stdout)}
    assert {"image", "text", "video", "point_cloud", "depth", "audio", "tactile", "eeg"} <= set(found)
    assert "metres" in found["depth"]["unit"]
    assert found["audio"]["package"].startswith("vitlens ")
    shown = run("modalities", "depth").stdout
    assert "scale" in shown and "step 1" in shown
    assert "unknown modality" in refused("modalities", "nope")


@pytest.mark.parametrize("name", ["audio", "depth", "eeg", "image", "point_cloud", "tactile", "text", "video"])
def test_info_describes_every_sensor_and_draws_it(name: str, files: dict[str, Path], here: Path) -> None:
    arguments = ["info", files[name], "--as", name, "--model", "vitlens-tiny-random"]
    shown = run(*arguments, "-o", "info.png").stdout
    assert "step 1" in shown and str(get_modality(name).unit) in shown
    not_blank(here / "info.png")
    facts = json.loads(run(*arguments, "--json").stdout)
    assert facts["modality"] == name
    assert facts["tensor"]["shape"]


def test_info_uses_the_options_of_the_model(files: dict[str, Path]) -> None:
    own = json.loads(run("info", files["point_cloud"], "--json").stdout)
    tiny = json.loads(run("info", files["point_cloud"], "--json", "--model", "vitlens-tiny-random").stdout)
    assert (own["tensor"]["shape"][0], tiny["tensor"]["shape"][0]) == (8192, 2048)


def test_info_reads_with_the_options_of_the_model(here: Path) -> None:
    (here / "t.off").write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    own, tiny = (json.loads(run("info", "t.off", "--json", *model).stdout) for model in ([], ["--model", "vitlens-tiny-random"]))
    assert (own["points"], tiny["points"]) == ("10,240", "2,560"), "a mesh is sampled when it is read, for the model's points"


def test_info_refuses_what_is_no_single_readable_file(files: dict[str, Path], here: Path) -> None:
    (here / "broken.png").write_bytes(b"rubbish")
    assert "a folder" in refused("info", ".")
    assert "no such file" in refused("info", "gone.png")
    assert "broken.png" in refused("info", "broken.png")
    assert "unknown model" in refused("info", files["image"], "--model", "nope")
    assert "no modality 'audio'" in refused("info", files["audio"], "--model", "vitlens-l-eeg")
    depth = np.full((40, 50), 2000, np.uint16)
    Image.fromarray(depth).save(here / "d.png")
    assert "scale" in refused("info", "d.png", "--as", "depth")
    run("info", "d.png", "--as", "depth", "-r", "scale=0.001")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vitlens", "modalities"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_broken_plugin_does_not_spoil_the_others(files: dict[str, Path], here: Path) -> None:
    (here / "broken_sensor.py").write_text("raise RuntimeError('no driver')\n")
    info = here / "broken_sensor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken_sensor\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vitlens.modalities]\nbroken = broken_sensor:Broken\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(Path(__file__).parent.parent)])}
    command = [sys.executable, "-m", "vitlens", "embed", str(files["text"]), "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "warning: modality 'broken' is left out, it cannot be imported: no driver\n")
    assert "1 text to embed" in done.stdout


def test_unknown_words_of_what_is_embedded_or_compared_are_named(here: Path) -> None:
    toy = ("--model", "vitlens-toybox", "--device", "cpu")
    with pytest.warns(UserWarning, match=r"does not know 'sparrow'"):
        run("embed", "-t", "a sparrow", "-t", "a chair", "-o", "texts.npz", *toy)
    with pytest.warns(UserWarning, match=r"does not know 'hamer' \(nearest known: hammer"):
        run("similarity", "-t", "a hamer", "--with-text", "a chair", *toy)

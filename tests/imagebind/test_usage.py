"""The usage script of ImageBind's documentation, written anew: run with only its import changed, or with nothing changed."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vitlens
from tests.imagebind.conftest import MODEL
from vitlens.cards import PACKAGE
from vitlens.imagebind import ModalityType, data, imagebind_model, install
from vitlens.imagebind.__main__ import main
from vitlens.imagebind.alias import ENV

SCRIPT = """
import sys
import torch
from {package} import data
from {package}.models import imagebind_model
from {package}.models.imagebind_model import ModalityType

words, pictures, sounds = ([line for line in part.split("|")] for part in sys.argv[1:4])
device = "cpu"

model = imagebind_model.imagebind_huge(pretrained=True)
model.eval()
model.to(device)

inputs = {{
    ModalityType.TEXT: data.load_and_transform_text(words, device),
    ModalityType.VISION: data.load_and_transform_vision_data(pictures, device),
    ModalityType.AUDIO: data.load_and_transform_audio_data(sounds, device),
}}
with torch.no_grad():
    embeddings = model(inputs)

vision, text, audio = (embeddings[kind] for kind in (ModalityType.VISION, ModalityType.TEXT, ModalityType.AUDIO))
vision_text = torch.softmax(vision @ text.T, dim=-1)
audio_text = torch.softmax(audio @ text.T, dim=-1)
vision_audio = torch.softmax(vision @ audio.T, dim=-1)
print("Vision x Text:", vision_text)
print("Audio x Text:", audio_text)
print("Vision x Audio:", vision_audio)
"""


@pytest.fixture
def arguments(toybox: dict[str, list[str]]) -> list[str]:
    return ["|".join(toybox[name]) for name in ("text", "image", "audio")]


def written(folder: Path, package: str) -> str:
    path = folder / "usage.py"
    path.write_text(SCRIPT.format(package=package), encoding="utf-8")
    return str(path)


def expected(toybox: dict[str, list[str]]) -> dict[str, Tensor]:
    """The same files through vitlens itself, with the factors that ImageBind's convention asks for."""
    model = vitlens.load(MODEL, device="cpu")
    found = model.encode({name: toybox[name] for name in ("text", "image", "audio")})
    return {"text": found["text"] * model.logit_scale, "vision": found["image"], "audio": found["audio"] * 20}


def check(names: dict[str, Any], toybox: dict[str, list[str]]) -> None:
    for key, embeddings in expected(toybox).items():
        torch.testing.assert_close(names["embeddings"][key], embeddings, atol=1e-4, rtol=1e-4)
    for table in ("vision_text", "audio_text", "vision_audio"):
        assert names[table].shape == (3, 3)
        torch.testing.assert_close(names[table].sum(dim=-1), torch.ones(3))


def test_the_script_runs_with_its_import_changed(
    toybox: dict[str, list[str]], arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["usage.py", *arguments])
    check(runpy.run_path(written(tmp_path, "vitlens.imagebind")), toybox)


def test_the_script_runs_unchanged_after_install(
    toybox: dict[str, list[str]], arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.setattr(sys, "argv", ["usage.py", *arguments])
    with pytest.warns(UserWarning, match="embeddings of vitlens-tiny-random have 64 numbers, ImageBind's 1024"):
        check(runpy.run_path(written(tmp_path, "imagebind")), toybox)


def test_the_script_runs_unchanged_from_the_command_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(ENV)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.warns(UserWarning, match="64 numbers"):
        main(["--model", MODEL, written(tmp_path, "imagebind"), *arguments])
    titles = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if ":" in line]
    assert titles == ["Vision x Text", "Audio x Text", "Vision x Audio"]


def test_the_command_line_starts_a_program(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    code = "import os\nfrom imagebind import ModalityType\nprint(os.environ['VITLENS_IMAGEBIND_MODEL'])\n"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "vitlens.imagebind", "--model", MODEL, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, f"{MODEL}\n"), done.stderr


def test_the_command_line_hands_arguments_and_folder_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside.py").write_text("from imagebind import ModalityType\n", encoding="utf-8")
    script = tmp_path / "script.py"
    script.write_text("import sys, beside\nprint(__name__, sys.argv[1:], beside.ModalityType.DEPTH)\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    main(["--model", MODEL, str(script), "--model", "mine", "-m"])
    assert capsys.readouterr().out == "__main__ ['--model', 'mine', '-m'] depth\n"
    main(["-m", "beside"])
    sys.modules.pop("beside")


def test_the_command_line_takes_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    lines = [
        "import ImageBind.data, image_bind.data, imagebind.data",
        "print(ImageBind.data is image_bind.data is imagebind.data)",
    ]
    script.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    main(["--alias", "ImageBind", "--alias", "image_bind", str(script)])
    assert capsys.readouterr().out == "True\n"


@pytest.mark.parametrize(("arguments", "message"), [([], "name a script"), (["no/such.py"], "no such script: no/such.py")])
def test_the_command_line_says_what_is_missing(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def shipped_accuracy() -> float:
    """What the shipped Toybox model was measured to reach on pictures of seen shapes; 0 where none is shipped."""
    path = PACKAGE / "benchmarks" / "toybox" / "weights" / "results.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["accuracies"] if path.is_file() else []
    return max((r["top1"] for r in rows if (r["sensor"], r["label"], r["split"]) == ("image", "shape", "test")), default=0.0)


def test_the_toybox_model_matches_pictures_to_captions(toybox_objects: dict[str, list[str]]) -> None:
    if shipped_accuracy() < 0.5:
        pytest.skip("no trained weights in benchmarks/toybox/weights: vitlens toybox train makes them")
    model = imagebind_model.imagebind_huge(pretrained=True, model="vitlens-toybox")
    inputs = {
        ModalityType.TEXT: data.load_and_transform_text(toybox_objects["text"], "cpu"),
        ModalityType.VISION: data.load_and_transform_vision_data(toybox_objects["image"], "cpu"),
    }
    with torch.no_grad():
        found = model(inputs)
    own = torch.arange(len(toybox_objects["text"]))
    pictures = torch.softmax(found["vision"] @ found["text"].T, dim=-1)
    assert (pictures.argmax(dim=-1) == own).float().mean() >= 0.9, "of 20 pictures most find their own caption"
    assert pictures.diag().mean() >= 0.8, "the factor on text makes cosines into probabilities"


def test_lancedbs_class_with_the_true_width(toybox: dict[str, list[str]], tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="pip install 'vitlens[index]'")
    install()
    import lancedb
    from lancedb.embeddings import get_registry, register
    from lancedb.embeddings.imagebind import ImageBindEmbeddings
    from lancedb.pydantic import LanceModel, Vector
    from pydantic import create_model

    @register("imagebind-vitlens")
    class Embeddings(ImageBindEmbeddings):
        def ndims(self) -> int:
            return self.embedding_model.embed_dim

    function: Any = get_registry().get("imagebind-vitlens").create()
    fields: dict[str, Any] = {
        "text": (str, ...),
        "image": (str, function.SourceField()),
        "vector": (Vector(function.ndims()), function.VectorField()),
    }
    table = lancedb.connect(tmp_path).create_table("objects", schema=create_model("Row", __base__=LanceModel, **fields))
    table.add([{"text": text, "image": image} for text, image in zip(toybox["text"], toybox["image"], strict=True)])
    assert table.search(toybox["image"][1]).limit(1).to_list()[0]["text"] == toybox["text"][1]

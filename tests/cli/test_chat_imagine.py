"""`vitlens chat` and `vitlens imagine` as a user meets them, with the host and the painter that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.adapters import tiny_hosts
from vitlens.adapters.chat.instructblip import InstructBlipAdapter
from vitlens.benchmarks.toybox.sensors.make import make_toybox
from vitlens.cli.app import app

TOY = ("-m", "vitlens-toybox")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    pytest.importorskip("open3d")
    folder = tmp_path_factory.mktemp("files")
    make_toybox(folder, objects={"test": 2}, sensors=["point_cloud", "audio", "image"], progress=False)
    return {kind: sorted(map(str, (folder / "test" / kind).iterdir())) for kind in ("point_cloud", "audio", "image")}


def run(*arguments: object, code: int = 0, typed: str | None = None) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result.stdout if code == 0 else result.stderr.strip()


def test_one_question_about_several_sensors(files: dict[str, list[str]]) -> None:
    said = run("chat", *TOY, "--point-cloud", files["point_cloud"][0], "--audio", files["audio"][0], "what is it made of?")
    assert said.startswith("it is made of")
    both = run("chat", *TOY, "--image", files["image"][0], "--image", files["image"][1], "--json", "what is this?")
    found = json.loads(both)
    assert len(found["answers"]) == 2
    assert "hammer" in found["answers"][0]
    assert found["inputs"] == {"image": files["image"]}


def test_a_conversation_goes_on_after_mistakes(files: dict[str, list[str]]) -> None:
    typed = f"what is this?\n/image {files['image'][0]}\nwhat shape is it?\n/image nowhere.png\n/smell x\n/clear\n/quit\nnever\n"
    result = CliRunner().invoke(app, ["chat", *TOY], input=typed)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "it is a hammer"
    assert "nothing to look at" in result.stderr
    assert "nowhere.png: no such file" in result.stderr
    assert "/smell: known are" in result.stderr


def test_chat_says_what_is_wrong_before_it_loads(files: dict[str, list[str]], tmp_path: Path) -> None:
    assert "--model is needed" in run("chat", "what?", code=2)
    assert "gone.ply: no such file" in run("chat", *TOY, "--point-cloud", "gone.ply", "what?", code=2)
    assert "'x'" in run("chat", *TOY, "--lens", "depth=x", "what?", code=2)
    assert "unknown option 'load_in_8bit'" in run("chat", *TOY, "--8bit", "what?", code=2)
    assert "write it as NAME=VALUE" in run("chat", *TOY, "--lens", "depth", "what?", code=2)
    assert "no such folder" in run("chat", "-m", tmp_path / "nowhere", "what?", code=2)
    assert "unknown generation option" in run("chat", *TOY, "--image", files["image"][0], "--option", "beams=3", "?", code=2)
    plan = run("chat", "-m", "some/host", "--lens", "point_cloud=lens", "--image", files["image"][0], "--dry-run", "what?")
    assert "nothing was loaded" in plan and "some/host" in plan


def test_a_host_in_a_folder_is_told_by_its_configuration(tmp_path: Path) -> None:
    from transformers import InstructBlipProcessor

    model, parts = tiny_hosts.instructblip()
    model.save_pretrained(tmp_path / "host")
    InstructBlipProcessor(**parts, num_query_tokens=tiny_hosts.QUERIES).save_pretrained(tmp_path / "host")
    tiny_hosts.lens_model(model.vision_model, "tactile").save_pretrained(tmp_path / "lens")
    touch, short = tmp_path / "touch.png", ("--option", "max_new_tokens=4", "--option", "num_beams=1")
    Image.fromarray(tiny_hosts.pictures(1)[0]).save(touch)
    call = ("chat", "-m", tmp_path / "host", "--lens", f"tactile={tmp_path / 'lens'}", "--tactile", touch, *short, "what?")
    host = InstructBlipAdapter(model, lenses={"tactile": tiny_hosts.lens_model(model.vision_model, "tactile")}, **parts)
    expected = host.generate("what?", {"tactile": str(touch)}, max_new_tokens=4, num_beams=1)
    assert json.loads(run(*call, "--json"))["answers"] == expected
    weights = (*call[:4], f"tactile={tmp_path / 'lens' / 'model.safetensors'}", *call[5:])
    assert json.loads(run(*weights, "--json"))["answers"] == expected
    gone = (*call[:4], f"tactile={tmp_path / 'gone.pt'}", *call[5:])
    assert "gone.pt: no such file" in run(*gone, code=2)
    assert "--fuse" not in run(*call, "--fuse", "llm")
    assert "lenses" in run(*[part for part in call if part not in ("--lens", call[4])], code=2)
    tiny_hosts.llava()[0].config.save_pretrained(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}), encoding="utf-8")
    assert "is a gpt2 model; there are adapters for instructblip" in run("chat", "-m", tmp_path / "other", "what?", code=2)


def test_imagine_paints_from_mixed_senses(files: dict[str, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "mixture.png"
    inputs = ("--point-cloud", files["point_cloud"][0], "--audio", files["audio"][1])
    said = run("imagine", *TOY, *inputs, "-w", "point_cloud=2", "-o", out, "--steps", 4)
    assert "by embedding, vitlens-toybox" in said
    assert Image.open(out).size == (64, 64)
    again = tmp_path / "again.png"
    run("imagine", *TOY, *reversed_pairs(inputs), "-w", "point-cloud=2", "-o", again, "--steps", 4)
    assert out.read_bytes() == again.read_bytes()


def reversed_pairs(given: tuple[str, ...]) -> tuple[str, ...]:
    return given[2:] + given[:2]


def test_imagine_writes_texts_from_a_bank(files: dict[str, list[str]], tmp_path: Path) -> None:
    bank, out = tmp_path / "bank.txt", tmp_path / "said.txt"
    bank.write_text("a hammer\na mug\na star\n", encoding="utf-8")
    run("imagine", *TOY, "--image", files["image"][0], "--bank", bank, "-o", out)
    assert out.read_text(encoding="utf-8").strip() == "a hammer"


def test_imagine_describes_in_words_that_the_model_knows(files: dict[str, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "said.txt"
    run("imagine", *TOY, "--image", files["image"][0], "-o", out)
    assert out.read_text(encoding="utf-8").strip() == "hammer"


@pytest.mark.filterwarnings("ignore:the model does not know")
def test_texts_that_the_model_cannot_tell_apart_are_refused(files: dict[str, list[str]], tmp_path: Path) -> None:
    bank = tmp_path / "bank.txt"
    bank.write_text("a sparrow\na robin\n", encoding="utf-8")
    said = run("imagine", *TOY, "--image", files["image"][0], "--bank", bank, "-o", tmp_path / "said.txt", code=2)
    assert "'a sparrow' and 'a robin'" in said
    said = run("classify", files["image"][0], *TOY, "--labels", "bird,sparrow,airliner", code=2)
    assert "'bird' and 'sparrow'" in said and "does not know" in said


def test_unknown_words_of_a_question_are_named(files: dict[str, list[str]]) -> None:
    with pytest.warns(UserWarning, match=r"'hamer' \(nearest known: hammer"):
        run("chat", *TOY, "--image", files["image"][0], "is it a hamer?")


def test_imagine_says_what_is_wrong_before_it_loads(files: dict[str, list[str]], tmp_path: Path) -> None:
    sound = ("--audio", files["audio"][0])
    assert "--out is needed" in run("imagine", *sound, code=2)
    assert "nothing to imagine from" in run("imagine", "-o", tmp_path / "a.png", code=2)
    assert "suffix" in run("imagine", *sound, "-o", tmp_path / "a.xyz", code=2)
    assert "no input 'depth'" in run("imagine", *sound, "-w", "depth=1", "-o", tmp_path / "a.png", code=2)
    assert "--weight audio must be a number" in run("imagine", *sound, "-w", "audio=much", "-o", tmp_path / "a.png", code=2)
    assert "no decoder 'paint'" in run("imagine", *TOY, *sound, "--decoder", "paint", "-o", tmp_path / "a.png", code=2)
    assert "only pictures are judged" in run("imagine", *sound, "--candidates", 2, "-o", tmp_path / "b.wav", code=2)
    plan = run("imagine", *sound, "-o", tmp_path / "a.png", "-o", tmp_path / "b.wav", "--dry-run")
    assert "sdxl" in plan and "audioldm2" in plan and "nothing was loaded" in plan
    assert "kandinsky-2.2" in run("imagine", "--list-decoders")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["audio"], "MODALITY=NUMBER"),
        (["audio=much"], "must be a number above 0, found 'much'"),
        (["audio=nan"], "must be a number above 0"),
        (["audio=-1"], "must be a number above 0"),
        (["image=1"], "no input 'image'; known: audio"),
        (["audio=1", "audio=2"], "is given twice"),
    ],
)
def test_weights_are_checked_before_anything_is_loaded(weights: list[str], message: str, tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"not looked at")
    named = [part for weight in weights for part in ("-w", weight)]
    done = CliRunner().invoke(app, ["imagine", "--audio", str(sound), "-o", str(tmp_path / "x.png"), *named])
    assert done.exit_code == 2
    assert message in done.stderr

"""The page in headless Chromium, at a real port: what a person does with it, and what they see when something is wrong."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from tests.scene.rooms import shots, write_open3d
from tests.serve.conftest import MODEL, tiny
from vitlens.cli.serve import examples_of
from vitlens.index import Index
from vitlens.modality import get_modality
from vitlens.scene.build import Settings as Building
from vitlens.scene.build import build
from vitlens.scene.check import check
from vitlens.scene.layouts import open_recording
from vitlens.scene.windows import Cutting
from vitlens.serve.app import create_app
from vitlens.serve.server import listening
from vitlens.serve.service import Service
from vitlens.serve.settings import MB, Limits, Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="drives a browser: pip install playwright")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: set CHROMIUM to its program, or put it on the PATH")
LIMIT_MB, TOKEN = 2.5, "secret-of-ours"
MODALITIES = ("image", "depth", "tactile", "audio", "eeg", "point_cloud", "video")
DROP = """async (named) => {
  const carried = new DataTransfer();
  for (const [name, content] of named) {
    carried.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
  }
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
  }
}"""
WAIT = 60_000


class Host:
    """Stands for a language model that sees pictures and sounds."""

    streams = ("image", "audio")

    def answer(self, question: str, files: Any, read: Any, **options: Any) -> list[str]:
        return [f"{question} {name}, {len(Path(path).read_bytes())} bytes" for name, paths in files.items() for path in paths]


class Served:
    """A service with an index, a scene and a language model at a free port, in a thread of this process."""

    def __init__(self, folder: Path, files: dict[str, Path]) -> None:
        model = tiny(*MODALITIES, "text")
        (folder / "shown.csv").write_text(f"image,text\n{files['image']},a red house\n")
        settings = Settings(
            model=MODEL,
            readers=1,
            tokens=frozenset([TOKEN]),
            limits=Limits(file_bytes=round(LIMIT_MB * MB)),
            examples=examples_of(folder),
            index=indexed(model, files, folder / "things.index"),
            scene=seen(model, folder),
            chat=Host,
        )
        listener = listening("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(create_app(Service(settings, load=lambda: model)), log_config=None, lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)


def indexed(model: Any, files: dict[str, Path], path: Path) -> Path:
    index = Index.create(path, model.space, model=MODEL)
    index.add(model.encode({"text": ["a dog"]})["text"].numpy(), model.space, modality="text", sources=["a dog"])
    for name in ("image", "point_cloud"):
        rows = model.encode({name: [files[name]]})[name].numpy()
        index.add(rows, model.space, modality=name, sources=[files[name].name], files=[str(files[name])])
    return path


def seen(model: Any, folder: Path) -> Path:
    report = check(open_recording(write_open3d(folder / "recorded", shots()[::4])))
    building = Building(voxel=0.1, cutting=Cutting(sizes=(1.0,), most=8), batch_size=16)
    build(report.recording, folder / "a.scene", lambda: model, building, check=report.to_dict())
    return folder / "a.scene"


@pytest.fixture(scope="module")
def own_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A usual file of every sensor."""
    folder = tmp_path_factory.mktemp("dropped")
    sensors = {name: get_modality(name) for name in MODALITIES}
    return {name: sensor.write(sensor.example(), folder, name) for name, sensor in sensors.items()}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, own_files: dict[str, Path]) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("page"), own_files)
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as driver:
        own = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        yield own
        own.close()


@pytest.fixture
def page(browser: sync_api.Browser, served: Served) -> Iterator[sync_api.Page]:
    """The page, ready; what it writes into the console as an error fails the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write", "microphone", "camera"], origin=served.address)
    context.add_init_script(f"sessionStorage.setItem('vitlens-token', '{TOKEN}')")
    own, wrong = context.new_page(), []
    own.set_default_timeout(WAIT)
    own.on("pageerror", lambda error: wrong.append(str(error)))
    own.on("console", lambda said: wrong.append(said.text) if said.type == "error" and "status of" not in said.text else None)
    opened(own, served.address)
    yield own
    context.close()
    assert not [text for text in wrong if "ERR_" not in text]


def opened(page: sync_api.Page, address: str) -> None:
    page.goto(address)
    sync_api.expect(page.locator("#model")).to_contain_text("in one space", timeout=WAIT)


def drop(page: sync_api.Page, *files: Path | tuple[str, bytes]) -> None:
    named = [(file.name, file.read_bytes()) if isinstance(file, Path) else file for file in files]
    page.evaluate(DROP, [(name, base64.b64encode(content).decode()) for name, content in named])


def words(page: sync_api.Page, *texts: str) -> None:
    for text in texts:
        page.get_by_label("or words").fill(text)
        page.get_by_role("button", name="Add words").click()


def done(page: sync_api.Page, count: int) -> None:
    sync_api.expect(page.locator(".card[aria-busy=false]")).to_have_count(count, timeout=WAIT)


def card(page: sync_api.Page, name: str) -> sync_api.Locator:
    return page.locator(".card", has=page.get_by_role("heading", name=name))


def downloaded(page: sync_api.Page, section: str, name: str) -> Path:
    with page.expect_download() as waiting:
        page.locator(section).get_by_role("button", name=name).click()
    return Path(waiting.value.path())


def test_files_of_every_sensor_are_shown_compared_mixed_and_classified(
    page: sync_api.Page, own_files: dict[str, Path], tmp_path: Path
) -> None:
    expect = sync_api.expect
    drop(page, *own_files.values())
    words(page, "a red house")
    sync_api.expect(page.locator(".card")).to_have_count(len(own_files) + 1)
    depth, touch = card(page, own_files["depth"].name), card(page, own_files["tactile"].name)
    touch.get_by_label("read as").select_option("tactile")
    done(page, len(own_files) + 1)
    if depth.get_by_role("alert").count():  # what its file does not say
        depth.get_by_label("scale").fill("0.001")
        depth.get_by_role("button", name="Read again").click()
    done(page, len(own_files) + 1)
    for name, path in own_files.items():
        own = card(page, path.name)
        expect(own.get_by_role("alert")).to_have_count(0)
        expect(own.get_by_label("read as")).to_have_value(name)
        seen = own.locator("canvas" if name == "point_cloud" else "img")
        expect(seen).to_have_count(1)
    assert page.locator("audio").evaluate("player => player.readyState > 0 || player.networkState === 2")
    turned = card(page, own_files["point_cloud"].name).locator("canvas")
    before = turned.screenshot()
    turned.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert turned.screenshot() != before
    expect(page.locator(".heat tbody tr")).to_have_count(len(own_files) + 1, timeout=WAIT)
    page.locator("#sliders input").first.fill("1")
    page.locator("#sliders input").last.fill("-0.5")
    expect(page.locator(".heat tbody tr")).to_have_count(len(own_files) + 2, timeout=WAIT)
    told = json.loads(downloaded(page, "#compare", "JSON").read_text())
    kept = np.load(downloaded(page, "#compare", "npz"))
    rows = kept["embeddings"]
    assert np.allclose(rows @ rows.T, told["cosines"], atol=1e-5) and kept["names"].tolist() == told["names"]
    mixed = 1.0 * rows[0] - 0.5 * rows[-2]
    assert np.allclose(rows[-1], mixed / np.linalg.norm(mixed), atol=1e-5)
    shown = page.locator(".heat tbody tr").first.locator("td").all_inner_texts()
    assert [float(text) for text in shown] == [pytest.approx(value, abs=0.006) for value in told["cosines"][0]]
    page.get_by_label("Labels").fill("chair, a dog\nrain")
    page.locator("#classify").get_by_role("button", name="Classify").click()
    expect(page.locator("#classes table")).to_have_count(len(own_files) + 1, timeout=WAIT)
    lines = downloaded(page, "#classify", "CSV").read_text().splitlines()
    assert lines[0] == "thing,modality,label,probability,cosine" and len(lines) == 1 + 3 * (len(own_files) + 1)
    for width in (1300, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_wrong_is_said_on_the_card(page: sync_api.Page, own_files: dict[str, Path]) -> None:
    expect = sync_api.expect
    size = round(LIMIT_MB * 1.2e6)
    drop(
        page,
        ("odd.xyzw", b"nothing that anybody reads"),
        ("huge.wav", b"\0" * size),
        ("torn.png", own_files["image"].read_bytes()[:90]),
    )
    done(page, 3)
    expect(card(page, "odd.xyzw").get_by_role("alert")).to_contain_text("no modality reads .xyzw files")
    expect(card(page, "huge.wav").get_by_role("alert")).to_contain_text("at most 2.5 MB (--max-file-mb changes that)")
    expect(card(page, "torn.png").get_by_role("alert")).to_contain_text("torn.png")
    words(page, "a chair")
    done(page, 4)
    expect(page.locator("#classify")).to_be_visible()
    page.context.set_offline(True)
    words(page, "a mug")
    expect(card(page, "a mug").get_by_role("alert")).to_contain_text("The service does not answer", timeout=WAIT)
    page.context.set_offline(False)
    card(page, "a mug").get_by_role("button", name="Try again").click()
    expect(card(page, "a mug").get_by_role("alert")).to_have_count(0, timeout=WAIT)
    expect(page.locator(".heat tbody tr")).to_have_count(2, timeout=WAIT)
    card(page, "huge.wav").get_by_role("button", name="Remove").press("Enter")
    expect(page.locator(".card")).to_have_count(4)
    assert page.evaluate("document.activeElement.className") == "card"


def test_words_and_examples_stand_in_the_address(page: sync_api.Page, served: Served) -> None:
    expect = sync_api.expect
    words(page, "a chair")
    page.get_by_role("button", name="Add image").click()
    done(page, 2)
    page.get_by_label("Labels").fill("red, blue")
    page.locator("#classify").get_by_role("button", name="Classify").click()
    expect(page.locator("#classes table")).to_have_count(2, timeout=WAIT)
    page.locator("#sliders input").first.fill("0.5")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#linked")).to_contain_text("Copied")
    address = page.evaluate("navigator.clipboard.readText()")
    other = page.context.new_page()
    opened(other, address)
    done(other, 2)
    expect(other.locator("#classes table")).to_have_count(2, timeout=WAIT)
    expect(other.locator("#sliders input").first).to_have_value("0.5")
    words(other, "a mug")
    done(other, 3)
    other.go_back()
    expect(other.locator(".card")).to_have_count(2)
    other.go_forward()
    expect(other.get_by_role("heading", name="a mug")).to_have_count(1)
    expect(page.locator(".card")).to_have_count(2)  # the first tab is as it was


def test_the_index_the_scene_and_the_language_model_are_asked(page: sync_api.Page, own_files: dict[str, Path]) -> None:
    expect = sync_api.expect
    words(page, "a dog")
    drop(page, own_files["image"])
    done(page, 2)
    page.locator("#search").get_by_role("button", name="Search").click()
    hits = page.locator("#hits > li")
    expect(hits).to_have_count(3, timeout=WAIT)
    expect(hits.first).to_contain_text("a dog")
    expect(hits.locator("img")).to_have_count(1, timeout=WAIT)
    expect(hits.locator("canvas")).to_have_count(1, timeout=WAIT)
    page.locator("#scene").get_by_role("button", name="Find").click()
    expect(page.locator("#places > li").first).to_contain_text(" m", timeout=WAIT)
    expect(page.locator("#places img").first).to_be_visible(timeout=WAIT)
    assert all(json.loads(downloaded(page, "#scene", "JSON").read_text())["places"])
    page.get_by_label("the question").fill("What is it?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#answers")).to_contain_text(
        f"What is it? image, {own_files['image'].stat().st_size} bytes", timeout=WAIT
    )


def test_sound_and_pictures_are_recorded(page: sync_api.Page) -> None:
    page.get_by_role("button", name="Record sound").click()
    page.get_by_text("Recording ...").wait_for()
    page.wait_for_timeout(700)
    page.get_by_role("button", name="Stop and add").click()
    done(page, 1)
    page.get_by_role("button", name="Take a picture").click()
    page.get_by_role("button", name="Take it").click()
    done(page, 2)
    sync_api.expect(page.locator(".card [role=alert]")).to_have_count(0)
    kinds = page.get_by_label("read as")
    assert [kinds.nth(place).input_value() for place in range(2)] == ["audio", "image"]


def test_a_service_with_tokens_asks_for_one(browser: sync_api.Browser, served: Served) -> None:
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    page.goto(served.address)
    page.get_by_label("wants a token").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    sync_api.expect(page.locator("#token-wrong")).to_contain_text("token", timeout=WAIT)
    page.get_by_label("wants a token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    sync_api.expect(page.locator("#model")).to_contain_text("in one space", timeout=WAIT)
    words(page, "a chair")
    done(page, 1)
    page.close()

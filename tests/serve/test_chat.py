"""/v1/chat/completions: a question and files reach the language model as `vitlens chat` hands them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import MODEL, Running, tiny
from tests.serve.test_embeddings import data_uri, message
from vitlens.serve.service import Service
from vitlens.serve.settings import Settings


class Parrot:
    """Says what it was asked, and what files are there at that moment."""

    streams = ("image", "depth")

    def __init__(self) -> None:
        self.files: list[Path] = []

    def answer(self, question: str, files: Any, read: Any, **options: Any) -> list[str]:
        self.files = [Path(path) for paths in files.values() for path in paths]
        assert all(path.is_file() for path in self.files)
        kinds = {name: [Path(path).suffix for path in paths] for name, paths in files.items()}
        return [f"{question} {kinds} {dict(read)} {options}"]


@pytest.fixture(scope="module")
def talking() -> Iterator[Running]:
    running = Running(Service(Settings(model=MODEL, readers=1, chat=Parrot), load=lambda: tiny("image", "depth", "text")))
    yield running
    running.close()


def said(reply: Any) -> str:
    assert reply.status_code == 200, reply.text
    [choice] = reply.json()["choices"]
    assert choice["message"]["role"] == "assistant"
    return str(choice["message"]["content"])


def test_a_question_in_messages_or_in_a_form(talking: Running, files: dict[str, Path]) -> None:
    parts = [{"type": "image_url", "image_url": {"url": data_uri(files["image"])}}, {"type": "text", "text": "what is this?"}]
    body = {"model": "any", "messages": [{"role": "user", "content": parts}], "max_tokens": 7}
    assert said(talking.post("/v1/chat/completions", json=body)) == "what is this? {'image': ['.png']} {} {'max_new_tokens': 7}"
    sent = {"depth": (files["depth"].name, files["depth"].read_bytes())}
    form = talking.post("/v1/chat/completions", files=sent, data={"question": "how far?", "depth.focal_length": "500"})
    assert said(form) == "how far? {'depth': ['.tiff']} {'depth': {'focal_length': 500}} {}"
    host: Any = talking.service.chat
    assert not any(path.exists() for path in host.files)


def test_what_cannot_be_asked(talking: Running, service: Running) -> None:
    def ask(*content: Any, **more: Any) -> Any:
        return talking.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": list(content)}], **more})

    text = {"type": "text", "text": "what?"}
    assert "at least one file" in message(ask(text))
    assert "no modality 'audio'" in message(ask(text, {"type": "audio_url", "audio_url": "data:,a"}))
    broken = {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}
    assert "Accepted: a picture" in message(ask(text, broken))
    assert "come whole" in message(ask(text, stream=True))
    assert "--host-model" in message(service.post("/v1/chat/completions", json={"messages": []}), 404)

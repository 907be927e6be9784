"""The service at a real port: slow clients, shutdown, and what the command says when it cannot start."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.serve.served import Served
from vitlens.cli.app import app

TINY = ("--model", "vitlens-tiny-random")
BODY = json.dumps({"input": "a dog"}).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("served") / "log"
    with Served(*TINY, "--upload-seconds", "1.5", log=log) as process:
        yield process.ready()


def connected(served: Served) -> socket.socket:
    url = httpx.URL(served.address)
    return socket.create_connection((url.host, url.port), timeout=60)


def all_of(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def test_it_says_where_it_is_and_logs_json(served: Served) -> None:
    assert served.line.startswith("vitlens-tiny-random at http://127.0.0.1:")
    reply = httpx.post(f"{served.address}/v1/embeddings", json={"input": "a"}, headers={"X-Request-ID": "seen"}, timeout=60)
    assert reply.status_code == 200 and reply.headers["x-request-id"] == "seen"
    end, logged = time.monotonic() + 30, False
    while not logged and time.monotonic() < end:  # the line is written after the answer
        time.sleep(0.02)
        lines = [json.loads(line) for line in served.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        logged = any(line.get("request_id") == "seen" and line["status"] == 200 for line in lines)
    assert logged


def test_an_upload_that_drips_is_ended_with_a_sentence(served: Served) -> None:
    for _ in range(5):
        try:
            answer = _dripped(served)
            break
        except ConnectionResetError:  # a drop met the closed connection before the answer was read
            continue
    assert answer.startswith(b"HTTP/1.1 408") and b"--upload-seconds" in answer


def _dripped(served: Served) -> bytes:
    with connected(served) as connection:
        connection.sendall(HEAD % 100_000)

        def drip() -> None:
            for _ in range(100):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        return all_of(connection)


@pytest.mark.parametrize("start", [b"", b"POST /v1/embeddings HTTP/1.1\r\nHost: loc"])
def test_a_head_that_never_ends_is_not_waited_for(served: Served, start: bytes) -> None:
    with connected(served) as connection:
        connection.sendall(start)
        assert all_of(connection) == b""


def test_a_second_head_that_never_ends_is_not_waited_for_either(served: Served) -> None:
    with connected(served) as connection:
        connection.sendall(HEAD % len(BODY) + BODY)
        answer = b""
        while b'"usage"' not in answer:
            answer += connection.recv(65536)
        connection.sendall(b"POST /v1/emb")
        assert all_of(connection) == b""


def test_too_much_is_refused_in_words_that_arrive(served: Served) -> None:
    with connected(served) as connection:  # as most clients do it: all is sent before anything is read
        size = 130_000_000
        connection.sendall(HEAD % size)
        for _ in range(size // 1_000_000):
            connection.sendall(bytes(1_000_000))
        answer = b""
        while b'"code"' not in answer:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413") and b"--max-request-mb" in answer
    with connected(served) as connection:  # as curl does it: it asks first
        head = HEAD % size
        connection.sendall(head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_other_names_for_the_loopback_are_refused(served: Served) -> None:
    assert httpx.get(f"{served.address}/healthz", headers={"Host": "rebound.example.org"}).status_code == 421


def test_what_was_accepted_is_finished_after_sigterm(tmp_path: Path) -> None:
    with Served(*TINY, log=tmp_path / "log") as process:
        process.ready()
        replies: list[Any] = []

        def ask() -> None:
            body = {"input": [f"a dog and {n}" for n in range(400)]}
            replies.append(httpx.post(f"{process.address}/v1/embeddings", json=body, timeout=120))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while "vitlens_accepted_requests 4.0" not in httpx.get(f"{process.address}/metrics", timeout=60).text and not replies:
            time.sleep(0.02)
        code = process.end()
        for thread in threads:
            thread.join(120)
        assert [reply.status_code for reply in replies] == [200] * 4
        assert all(len(reply.json()["data"]) == 400 for reply in replies)
        assert code == 143
        with pytest.raises(httpx.TransportError):
            httpx.get(process.address)


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_what_keeps_it_from_starting_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"port {port}: the port is taken" in said(*TINY, "--port", port)
    assert "no such file" in said(*TINY, "--token-file", str(tmp_path / "none"))
    (tmp_path / "tokens").write_text("# nobody yet\n\n")
    assert "no token in it" in said(*TINY, "--token-file", str(tmp_path / "tokens"))
    assert "must fit into a request" in said(*TINY, "--max-file-mb", "500")
    assert "--log-level" in said(*TINY, "--log-level", "loud")
    assert "--engine ray" in said(*TINY, "--replicas", "2")
    assert "--engine must be" in said(*TINY, "--engine", "gunicorn")


def test_an_unknown_model_ends_it_with_a_sentence(tmp_path: Path) -> None:
    with Served("--model", "vitlens-none", log=tmp_path / "log") as process:
        assert process.process.wait(120) == 2
    assert "unknown model 'vitlens-none'" in (tmp_path / "log").read_text().splitlines()[-1]

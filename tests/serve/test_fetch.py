"""Addresses that clients name: only of allowed hosts, never private ones, whatever they resolve or redirect to."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.serve.conftest import Start
from tests.serve.test_embeddings import direct, rows
from vitlens.serve.fetch import Fetcher, is_public
from vitlens.serve.given import Address
from vitlens.serve.refusals import Refusal
from vitlens.serve.settings import Limits

LIMITS = Limits(file_bytes=1_000_000, upload_seconds=1.0)
PAGES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/a.bin": (200, {"Content-Type": "image/png"}, b"content"),
    "/moved": (302, {"Location": "/a.bin"}, b""),
    "/elsewhere": (302, {"Location": "http://evil.example.net/a.bin"}, b""),
    "/inside": (302, {"Location": "http://169.254.169.254/latest"}, b""),
    "/file": (302, {"Location": "file:///etc/passwd"}, b""),
    "/round": (302, {"Location": "/round"}, b""),
    "/large": (200, {}, b"x" * 1_000_001),
    "/packed": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"),
    "/missing": (404, {}, b""),
    "/empty": (200, {}, b""),
}


class Host(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host']}{self.path}")
        if self.path == "/slow":
            threading.Event().wait(3)
            return
        status, headers, content = PAGES[self.path]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


async def here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def anywhere(address: Any) -> bool:
    return str(address) != "169.254.169.254"


def fetched(url: str, hosts: tuple[str, ...], **given: Any) -> Any:
    async def fetch() -> Any:
        fetcher = Fetcher(hosts, LIMITS, **{"resolve": here, "public": anywhere, **given})
        try:
            return await fetcher.fetch(Address(url), "input[0]")
        finally:
            await fetcher.close()

    return asyncio.run(fetch())


def refused(url: str, *hosts: str, **given: Any) -> str:
    with pytest.raises(Refusal) as caught:
        fetched(url, hosts, **given)
    assert caught.value.param == "input[0]"
    return caught.value.message


def test_a_file_of_an_allowed_host(port: int) -> None:
    name = f"data.example.org:{port}"
    for path in ("/a.bin", "/moved"):
        file = fetched(f"http://{name}{path}", (name,))
        assert (file.content, file.name, file.kind) == (b"content", "a.bin", "image/png")
    assert f"{name}/a.bin" in Host.asked
    assert fetched(f"http://x.{name}/a.bin", (f"*.{name}",)).content == b"content"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/elsewhere", "'evil.example.net' is not allowed"),
        ("/inside", "'169.254.169.254' is not allowed"),
        ("/file", "no http(s) address"),
        ("/round", "redirects"),
        ("/large", "--max-file-mb"),
        ("/packed", "compressed"),
        ("/missing", "answers 404"),
        ("/empty", "empty"),
        ("/slow", "cannot be fetched"),
    ],
)
def test_what_a_host_may_answer(port: int, path: str, said: str) -> None:
    name = f"data.example.org:{port}"
    assert said in refused(f"http://{name}{path}", name)


def test_hosts_that_were_not_allowed() -> None:
    assert "no host is allowed (--allow-host)" in refused("http://example.org/a")
    for url in ("http://example.org.evil.net/", "http://evil-example.org/", "http://example.org:8080/", "http://x.example.org/"):
        assert "is not allowed; allowed: example.org" in refused(url, "example.org")
    assert "is not allowed" in refused("http://example.org/", "*.example.org")
    assert "user name" in refused("http://example.org@evil.net/", "evil.net")
    assert "user name" in refused("http://a:b@example.org/", "example.org")
    assert refused("http://[::1/", "example.org")
    assert refused("http://example.org:99999/", "example.org")


PRIVATE = """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 ::1 :: fe80::1
fc00::1 ff02::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ::ffff:169.254.169.254"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_addresses_are_never_connected_to(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.215.14", address]  # one good one does not make it allowed

    assert "private address" in refused("http://example.org/", "example.org", resolve=resolve, public=is_public)


def test_public_addresses_are() -> None:
    assert is_public(ipaddress.ip_address("93.184.215.14")) and is_public(ipaddress.ip_address("2606:2800:21f:cb07::1"))


def test_a_name_is_resolved_once(port: int) -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    name = f"data.example.org:{port}"
    fetched(f"http://{name}/a.bin", (name,), resolve=resolve)
    assert asked == ["data.example.org"]


def test_the_service_reads_what_it_fetched(start: Start, port: int, tmp_path: Any) -> None:
    name = f"data.example.org:{port}"
    running = start("image", "text", fetcher=Fetcher((name,), LIMITS, resolve=here, public=anywhere))
    sensor = running.service.model.modality("image")
    path = sensor.write(sensor.example(), tmp_path, "picture")
    PAGES["/picture.png"] = (200, {"Content-Type": "image/png"}, path.read_bytes())
    url = f"http://{name}/picture.png"
    reply = running.post("/v1/embeddings", json={"input": [{"type": "image_url", "image_url": {"url": url}}]})
    assert (abs(rows(reply) - direct(running, "image", path)) < 1e-4).all()

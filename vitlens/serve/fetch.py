"""Addresses that clients name, fetched: from hosts that were allowed, and never from a private network.

The name is resolved once, every address it has is checked, and the connection goes to the address that was checked: a name that
answers differently the second time (DNS rebinding) gains nothing. The same is done again for every redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from vitlens.serve.given import Address, File, check_size
from vitlens.serve.refusals import Refusal, invalid
from vitlens.serve.settings import Limits

REDIRECTS = 3
AT_ONCE = 16
"""Addresses that are fetched at the same time; others wait."""
IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]


def is_public(address: IP) -> bool:
    """Whether an address belongs to the open internet, and so do the IPv4 addresses that it may stand for."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(one is not None and not is_public(one) for one in inner):
            return False
    return address.is_global and not address.is_multicast


async def resolved(host: str, port: int) -> list[str]:
    """All addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Fetcher:
    """Fetches files of clients' addresses within the limits."""

    def __init__(
        self,
        hosts: Sequence[str],
        limits: Limits,
        *,
        resolve: Resolve = resolved,
        public: Callable[[IP], bool] = is_public,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.hosts = tuple(host.lower().rstrip(".") for host in hosts)
        self.limits = limits
        self._resolve, self._public = resolve, public
        # trust_env: no proxy from the environment, which would connect for us to whatever it likes.
        self._client = httpx.AsyncClient(
            timeout=limits.upload_seconds,
            trust_env=False,
            follow_redirects=False,
            verify=verify,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def fetch(self, address: Address, where: str) -> File:
        """The file at an address.

        Raises:
            Refusal: a host that is not allowed, a private address, an answer other than 200, too large or too late.
        """
        async with self._slots:
            try:
                return await asyncio.wait_for(self._follow(address, where), 2 * self.limits.upload_seconds)
            except asyncio.TimeoutError as error:
                raise _failed(where, address.url, "it takes too long") from error
            except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
                raise _failed(where, address.url, " ".join(str(error).split())[:200] or type(error).__name__) from error

    async def _follow(self, address: Address, where: str) -> File:
        url = address.url
        for _ in range(REDIRECTS + 1):
            request = await self._request(url, where)
            response = await self._client.send(request, stream=True)
            try:
                if response.is_redirect:
                    url = urljoin(url, response.headers["location"])
                    continue
                if response.status_code != 200:
                    raise _failed(where, url, f"its host answers {response.status_code}")
                return await self._content(response, url, address, where)
            finally:
                await response.aclose()
        raise _failed(where, address.url, f"more than {REDIRECTS} redirects")

    async def _request(self, url: str, where: str) -> httpx.Request:
        """The request for `url`, to an address that was checked."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower().rstrip(".")
        secure = parts.scheme.lower() == "https"
        port = parts.port or (443 if secure else 80)
        if parts.scheme.lower() not in ("http", "https") or not host:
            raise _not_allowed(where, f"{url[:200]!r} leads to no http(s) address")
        if parts.username is not None or parts.password is not None:
            raise _not_allowed(where, "an address with a user name or password in it is not fetched")
        if not self._allowed(host, parts.port):
            advice = f"allowed: {', '.join(self.hosts)}" if self.hosts else "no host is allowed (--allow-host): send a data: URI"
            raise _not_allowed(where, f"the host {host!r} is not allowed; {advice}")
        addresses = [ipaddress.ip_address(one.partition("%")[0]) for one in await self._resolve(host, port)]
        if not addresses or not all(self._public(one) for one in addresses):
            raise _not_allowed(where, f"the host {host!r} has a private address, which is not fetched from")
        chosen = addresses[0]
        literal = f"[{chosen}]" if chosen.version == 6 else str(chosen)
        target = (
            f"{'https' if secure else 'http'}://{literal}:{port}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        )
        headers = {"Host": parts.netloc, "Accept-Encoding": "identity", "User-Agent": "vitlens"}
        return self._client.build_request("GET", target, headers=headers, extensions={"sni_hostname": host} if secure else None)

    def _allowed(self, host: str, port: int | None) -> bool:
        for pattern in self.hosts:
            name, _, wanted = pattern.partition(":")
            fits = host.endswith(name[1:]) and host != name[2:] if name.startswith("*.") else host == name
            if fits and (str(port or "") == wanted or (not wanted and port in (None, 80, 443))):
                return True
        return False

    async def _content(self, response: httpx.Response, url: str, address: Address, where: str) -> File:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _failed(where, url, "its host sends it compressed, though it was asked not to")
        check_size(int(response.headers.get("content-length", 0)), where, self.limits)
        content = bytearray()
        async for piece in response.aiter_raw():
            content += piece
            check_size(len(content), where, self.limits)
        if not content:
            raise _failed(where, url, "it is empty")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return File(bytes(content), unquote(urlsplit(url).path.rpartition("/")[2]), kind, address.format)


def _not_allowed(where: str, why: str) -> Refusal:
    return invalid(f"{where}: {why}", where, code="address_not_allowed")


def _failed(where: str, url: str, why: str) -> Refusal:
    return invalid(f"{where}: {url[:200]} cannot be fetched: {why}", where, code="address_failed")

"""Pictures that are named by their address, for a server that was told to fetch them.

A name is looked up once, all its addresses must be public, and the connection goes to one of them:
what the name's owner answers a second time changes nothing.
"""

import asyncio
import ipaddress
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import h11

from mllm.serving.images import check_size
from mllm.serving.options import Limits

PORTS = {"http": 80, "https": 443}  # others belong to other services
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
CHUNK_BYTES = 65536
# Of the IPv6 range for public addresses, what wraps IPv4 addresses, private ones among them.
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
WRAPPING_V6 = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))


@dataclass(frozen=True)
class Target:
    """Where a picture lies."""

    scheme: str
    host: str
    path: str

    @property
    def port(self) -> int:
        return PORTS[self.scheme]

    @classmethod
    def from_url(cls, url: str) -> "Target":
        """Raises ValueError for anything but a plain http or https address."""
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode()
        except ValueError as error:  # UnicodeError is one
            raise ValueError(f"a picture's address cannot be read, got {url[:80]!r}") from error
        if parts.scheme not in PORTS or not host:
            raise ValueError(f"a picture's address must be http or https, got {url[:80]!r}")
        if parts.username is not None or port not in (None, PORTS[parts.scheme]):
            raise ValueError(
                f"a picture's address must have no user and no port of its own, got {url[:80]!r}"
            )
        path = parts.path or "/"
        target = f"{path}?{parts.query}" if parts.query else path
        if not target.isascii() or not target.isprintable() or " " in target:
            raise ValueError(f"a picture's address must be percent-encoded, got {url[:80]!r}")
        return cls(parts.scheme, host, target)


@dataclass(frozen=True)
class Fetched:
    """What an address answered."""

    status: int
    location: str | None
    body: bytes


async def fetch_picture(url: str, limits: Limits) -> bytes:
    """The file at `url`, within `limits`; every failure is a ValueError that says why."""
    try:
        async with asyncio.timeout(limits.fetch_seconds):
            return await follow(url, limits)
    except TimeoutError as error:
        raise ValueError(
            f"the picture's address took longer than {limits.fetch_seconds:g} s; send the "
            "picture itself"
        ) from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise ValueError("the picture cannot be fetched; send the picture itself") from error


async def follow(url: str, limits: Limits) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        target = Target.from_url(url)
        fetched = await get(target, await find_address(target), limits)
        if fetched.status == 200:
            return fetched.body
        if fetched.status not in REDIRECTS or fetched.location is None:
            raise ValueError(f"the picture's address answers with status {fetched.status}")
        url = urljoin(url, fetched.location)
    raise ValueError(f"the picture's address leads on more than {MAX_REDIRECTS} times")


async def find_address(target: Target) -> str:
    """The IP address to connect to; raises ValueError if any of the name's is not public."""
    addresses = await resolve(target.host, target.port)
    if not addresses or not all(is_public(address) for address in addresses):
        raise ValueError("the picture's address is not public; only public ones are fetched")
    return addresses[0]


async def resolve(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip not in PUBLIC_V6 or any(ip in network for network in WRAPPING_V6):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def get(target: Target, address: str, limits: Limits) -> Fetched:
    """One request to `address`, which answers in the name of the target's host."""
    secure = target.scheme == "https"
    reader, writer = await asyncio.open_connection(
        address,
        target.port,
        ssl=ssl.create_default_context() if secure else None,
        server_hostname=target.host if secure else None,
    )
    try:
        connection = h11.Connection(h11.CLIENT)
        writer.write(write_request(connection, target))
        await writer.drain()
        return await read_response(connection, reader, limits)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def write_request(connection: h11.Connection, target: Target) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    headers = [
        ("host", host),
        ("user-agent", "unitok"),
        ("accept", "image/*"),
        ("accept-encoding", "identity"),
        ("connection", "close"),
    ]
    request = h11.Request(method="GET", target=target.path, headers=headers)
    return (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")


async def read_response(
    connection: h11.Connection, reader: asyncio.StreamReader, limits: Limits
) -> Fetched:
    status, location, body = 0, None, bytearray()
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
            location = dict(event.headers).get(b"location")  # h11 gives names in lower case
            if status != 200:
                break
        elif isinstance(event, h11.Data):
            body += event.data
            check_size(len(body), limits)
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("closed before its answer was complete")
    return Fetched(status, location.decode("latin-1") if location else None, bytes(body))

"""The way out for servers with network = "allow": a proxy for each, that connects to what its rules name and no more.

A server's identity is the socket on which it asks, which only its sandbox can reach. A name is looked up once, here;
each address that comes of it is judged, and the connection goes to a judged address: a resolver that answers otherwise
the next time gains nothing. CONNECT (RFC 9110, 9.3.6) and absolute-form (RFC 9112, 3.2.2) are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from mcpd.clock import Clock
from mcpd.config.profiles import Rules
from mcpd.errors import SpawnError
from mcpd.fleet.tasks import Tasks
from mcpd.sandbox.policy import Identity

_log = structlog.get_logger("mcpd.fleet")

LONGEST_HEAD: Final = 16 * 1024
HEAD_TIMEOUT: Final = 10.0
LOOKUP_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 10.0
IDLE_TIMEOUT: Final = 600.0
MOST_CONNECTIONS: Final = 64
MOST_ADDRESSES: Final = 8
LINGER: Final = 2.0
CHUNK: Final = 64 * 1024
TELL_AGAIN_AFTER: Final = 60.0
MOST_TOLD: Final = 20
"""So many different refusals a server and minute become events; the rest is counted."""
_LONGEST_SOCKET_PATH: Final = 107
_HOP_BY_HOP: Final = (b"proxy-", b"connection:", b"keep-alive:", b"host:", b"upgrade:", b"te:")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(name, port) -> addresses, in the order in which they are tried. Raises OSError."""


class Refusal(Exception):
    """The request is answered with this status, and goes nowhere."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Request(msgspec.Struct, frozen=True):
    host: str
    port: int
    opening: bytes | None
    """What is sent to the server first; None: CONNECT, which sends nothing."""


def is_public(text: str) -> bool:
    """Whether an address is one of the internet's, also behind forms of IPv6 that stand for an address of IPv4.

    NAT64 (RFC 6052), 6to4 (RFC 3056), mapped and compatible (RFC 4291) are judged by the address that they embed;
    Teredo and local-use NAT64 (RFC 8215) are nobody's that could be judged.
    """
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.teredo is not None or address in _LOCAL_NAT64:
            return False
        embedded = address.ipv4_mapped or address.sixtofour
        if embedded is None and (address in _NAT64 or address in _COMPATIBLE):
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            address = embedded
    return address.is_global and not address.is_multicast


async def resolve(name: str, port: int) -> list[str]:
    """The system's resolver (getaddrinfo(3))."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Egress:
    """The proxies of all servers. `tell(server, text)` makes an event of what was refused."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        tasks: Tasks,
        tell: Callable[[str, str], None],
        resolve: Resolve = resolve,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._start = tasks
        self._tell = tell
        self._resolve = resolve
        self._proxies: dict[str, _Proxy] = {}

    def socket_for(self, server: str, rules: Rules, user: Identity | None) -> str:
        """The socket of the server's proxy, which follows these rules from now on. Raises SpawnError.

        It listens when this returns; who connects is served as soon as the loop goes on.
        """
        proxy = self._proxies.get(server)
        if proxy is None or proxy.closed:
            proxy = _Proxy(server, rules, self._clock, self._start, self._tell, self._resolve)
            proxy.open(self._directory / f"{server}.sock", user)
            self._proxies[server] = proxy
        proxy.rules = rules
        return str(proxy.path)

    def forget(self, server: str) -> None:
        """The server is gone for good."""
        proxy = self._proxies.pop(server, None)
        if proxy is not None:
            proxy.close()


class _Proxy:
    """The proxy of one server."""

    def __init__(
        self,
        server: str,
        rules: Rules,
        clock: Clock,
        tasks: Tasks,
        tell: Callable[[str, str], None],
        resolve: Resolve,
    ) -> None:
        self.rules = rules
        self.closed = False
        self.path = Path()
        self._server = server
        self._clock = clock
        self._start = tasks
        self._tell = tell
        self._resolve = resolve
        self._connections = 0
        self._told: dict[str, float] = {}
        self._untold = 0
        self._task: asyncio.Task[None] | None = None

    def open(self, path: Path, user: Identity | None) -> None:
        if len(bytes(path)) > _LONGEST_SOCKET_PATH:
            raise SpawnError("sandbox", f"the proxy's socket {path} has too long a path; set a shorter runtime_dir")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            if user is not None:
                os.chown(path, user.uid, user.gid)
            listener.listen(MOST_CONNECTIONS)
        except OSError as error:
            listener.close()
            raise SpawnError("sandbox", f"the proxy's socket {path}: {error.strerror}") from error
        self.path = path
        self._task = self._start(self._listen(listener), f"egress:{self._server}")

    def close(self) -> None:
        self.closed = True
        if self._task is not None:
            self._task.cancel()

    async def _listen(self, listener: socket.socket) -> None:
        try:
            server = await asyncio.start_unix_server(self._accept, sock=listener, limit=LONGEST_HEAD)
            async with server:
                await server.serve_forever()
        finally:
            self.closed = True
            listener.close()
            self.path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._serve(reader, writer), f"egress:{self._server}:connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            await self._answer(reader, writer)
        except Refusal as refusal:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(HEAD_TIMEOUT):
                    writer.write(_refusal(refusal))
                    await writer.drain()
        except OSError:
            pass  # the server hung up, or the other side did: both know
        except Exception:  # noqa: BLE001 - whatever it is, it must not end the group that all tasks share
            _log.exception("egress.bug", server=self._server)
        finally:
            self._connections -= 1
            await _hang_up(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections > 2 * MOST_CONNECTIONS:
            return
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
        except (TimeoutError, asyncio.IncompleteReadError):
            return
        except asyncio.LimitOverrunError:
            raise Refusal("431 Request Header Fields Too Large", f"over {LONGEST_HEAD} bytes") from None
        if self._connections > MOST_CONNECTIONS:  # only now: an answer to what was not read would be lost (tcp(7))
            raise Refusal("503 Service Unavailable", f"more than {MOST_CONNECTIONS} connections")
        request = parse(head)
        addresses = await self._judged(request.host, request.port)
        far_reader, far_writer = await self._connect(request, addresses)
        try:
            if request.opening is None:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far_writer.write(request.opening)
            await _splice(reader, writer, far_reader, far_writer)
        finally:
            await _hang_up(far_writer)

    async def _judged(self, host: str, port: int) -> list[str]:
        """The addresses that may be connected to. Raises Refusal, and makes an event of it."""
        if not any(target.covers(host, port) for target in self.rules.allow):
            raise self._refused(host, port, "it is not in allow")
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                found = [str(ipaddress.ip_address(host))] if _is_address(host) else await self._resolve(host, port)
        except TimeoutError:
            raise Refusal("504 Gateway Timeout", f"{host}: no address within {LOOKUP_TIMEOUT:g} s") from None
        except (OSError, UnicodeError) as error:
            raise Refusal("502 Bad Gateway", f"{host}: {error}") from None
        usable = [one for one in found if self.rules.allow_private or is_public(one)]
        if not usable:
            raise self._refused(host, port, f"it stands for {', '.join(found[:3]) or 'nothing'}, which is private")
        return usable[:MOST_ADDRESSES]

    async def _connect(
        self, request: _Request, addresses: list[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problem = ""
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    return await asyncio.open_connection(address, request.port)
            except TimeoutError:
                problem = "no answer"
            except OSError as error:
                problem = error.strerror or errno.errorcode.get(error.errno or 0, "") or str(error)
        raise Refusal("502 Bad Gateway", f"{request.host}:{request.port}: {problem}")

    def _refused(self, host: str, port: int, why: str) -> Refusal:
        now = self._clock.monotonic()
        self._told = {key: at for key, at in self._told.items() if now - at < TELL_AGAIN_AFTER}
        key = f"{host}:{port}"
        if key not in self._told and len(self._told) < MOST_TOLD:
            self._told[key] = now
            more = f" ({self._untold} other refusals were not told)" if self._untold else ""
            self._untold = 0
            self._tell(self._server, f"network: {key[:300]} was refused: {why}{more}")
        elif key not in self._told:
            self._untold += 1
        return Refusal("403 Forbidden", f"{key} was refused: {why}")


def parse(head: bytes) -> _Request:
    """Where a request wants to go. Raises Refusal."""
    line, _, fields = head.partition(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
    except ValueError:  # also UnicodeDecodeError
        raise Refusal("400 Bad Request", "no request line") from None
    if not version.startswith("HTTP/1."):
        raise Refusal("505 HTTP Version Not Supported", f"{version[:20]} is not spoken here")
    if method == "CONNECT":
        host, port = _authority(target, None)
        return _Request(host, port, None)
    if not target.lower().startswith("http://"):
        raise Refusal("405 Method Not Allowed", "this is a proxy: use CONNECT, or a request for http://…")
    try:
        url = urlsplit(target)
    except ValueError:
        raise Refusal("400 Bad Request", "no such URL") from None
    host, port = _authority(url.netloc.rpartition("@")[2], 80)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    kept = [one for one in fields.split(b"\r\n") if one and not one.lower().startswith(_HOP_BY_HOP)]
    own = [f"{method} {path} HTTP/1.1".encode(), f"Host: {url.netloc.rpartition('@')[2]}".encode()]
    return _Request(host, port, b"\r\n".join([*own, *kept, b"Connection: close", b"", b""]))


def _authority(text: str, default_port: int | None) -> tuple[str, int]:
    """Host, in the form in which rules name it, and port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        well = bool(bracket) and (not rest or rest.startswith(":")) and _is_address(host)
        host = str(ipaddress.ip_address(host)) if well else host
    else:
        host, _, port = text.partition(":")
        well = True
    host = host.lower().rstrip(".")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else default_port if not port else None
    if not well or not host or number is None or not 0 < number < 65536 or len(host) > 253:
        raise Refusal("400 Bad Request", f"{text[:100]!r} is not a host and a port")
    return host, number


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close when all is written, or soon after."""
    writer.close()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


def _refusal(refusal: Refusal) -> bytes:
    body = f"mcpd: {refusal}\n".encode()
    head = f"HTTP/1.1 {refusal.status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


async def _splice(
    near_reader: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Copy both ways until both have ended, one has broken, or nothing has come for a long time."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_copy(near_reader, far_writer), name="egress:out")
        group.create_task(_copy(far_reader, near_writer), name="egress:in")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            async with asyncio.timeout(IDLE_TIMEOUT):
                chunk = await reader.read(CHUNK)
                if not chunk:
                    break
                writer.write(chunk)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, TimeoutError):
        writer.close()  # the copy in the other direction ends by this

"""A tool's side of the control socket. Blocking, and light enough for a command that runs for a moment.

Errors: NoDaemon where nobody listens, Refused for what the daemon says no to.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from mcpd.control.messages import (
    Accepted,
    CallRequest,
    Fault,
    Isolations,
    NewToken,
    PinDifferences,
    Pins,
    Pruned,
    PruneRequest,
    ReloadRequest,
    Servers,
    Sessions,
    Tokens,
    Tools,
    UpgradeRequest,
)
from mcpd.control.trust import is_trusted
from mcpd.control.view import (
    DaemonStatus,
    Event,
    Gap,
    IsolationStatus,
    Outcome,
    PinDifference,
    PinStatus,
    ReloadReport,
    ServerDetail,
    ServerStatus,
    SessionStatus,
    TokenRequest,
    TokenStatus,
    ToolStatus,
    Upgrade,
)
from mcpd.errors import McpdError

CONNECT_TIMEOUT: Final = 5.0
QUERY_TIMEOUT: Final = 30.0
COMMAND_TIMEOUT: Final = 600.0
INSTALL_TIMEOUT: Final = 2000.0
CHUNK: Final = 64 * 1024

T = TypeVar("T")


class NoDaemon(McpdError):
    """Nobody listens on the control socket, or it went away in the middle."""


class Refused(McpdError):
    """The daemon's answer was an error: `fault` is it, `status` its HTTP status."""

    def __init__(self, status: int, fault: Fault) -> None:
        super().__init__(fault.error)
        self.status = status
        self.fault = fault


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self.link: socket.socket | None = None

    def connect(self) -> None:
        self.sock = self.link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(CONNECT_TIMEOUT)
            self.sock.connect(str(self._path))
            _check_peer(self.sock, self._path)
            self.sock.settimeout(self.timeout)
        except BaseException:
            self.close()
            raise


def _check_peer(link: socket.socket, path: Path) -> None:
    """Raise PermissionError unless the daemon can be believed to be the one that is meant (`trust`)."""
    _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if not is_trusted(os.fspath(path), uid):
        raise PermissionError(1, f"belongs to user {uid}, to whom root has not given the directory", str(path))


class ControlClient:
    """One connection a call, so that it may be used from several threads at once.

    Of the given places the first counts at which a daemon listens that can be trusted. Names of servers are the
    caller's business: an unknown one is `Refused` with kind NotFound.
    """

    def __init__(self, *places: Path) -> None:
        self.places = places

    def daemon(self) -> DaemonStatus:
        return self._get("/daemon", DaemonStatus)

    def servers(self) -> list[ServerStatus]:
        return self._get("/servers", Servers).servers

    def server(self, name: str) -> ServerDetail:
        return self._get(f"/servers/{quote(name, safe='')}", ServerDetail)

    def sessions(self) -> list[SessionStatus]:
        return self._get("/sessions", Sessions).sessions

    def tools(self, server: str | None = None) -> list[ToolStatus]:
        query = "" if server is None else "?" + urlencode({"server": server})
        return self._get(f"/tools{query}", Tools).tools

    def start(self, name: str) -> Outcome:
        return self._command(name, "start")

    def stop(self, name: str) -> Outcome:
        return self._command(name, "stop")

    def restart(self, name: str) -> Outcome:
        return self._command(name, "restart")

    def roll(self, name: str) -> Outcome:
        return self._command(name, "roll")

    def reset_failed(self, name: str) -> Outcome:
        return self._command(name, "reset-failed")

    def upgrade(self, name: str, version: str | None) -> Upgrade:
        """Install it; takes as long as that takes."""
        target = f"/servers/{quote(name, safe='')}/upgrade"
        return self._post(target, UpgradeRequest(version), Upgrade, INSTALL_TIMEOUT)

    def prune(self, name: str | None) -> list[str]:
        return self._post("/packages/prune", PruneRequest(name), Pruned).packages

    def isolation(self) -> list[IsolationStatus]:
        return self._get("/isolation", Isolations).processes

    def reload(self, dry_run: bool = False) -> ReloadReport:
        return self._post("/reload", ReloadRequest(dry_run), ReloadReport)

    def call(self, server: str, tool: str, arguments: bytes, timeout: float) -> bytes:
        """The result's JSON as the server sent it; `arguments` that are no JSON object are Refused."""
        body = msgspec.json.encode(CallRequest(server, tool, msgspec.Raw(arguments), timeout))
        return self._exchange("POST", "/call", body, timeout + CONNECT_TIMEOUT)

    def audit(self, lines: int = 100, follow: bool = False) -> ByteStream:
        """The end of the audit log, in pieces as they come."""
        query = urlencode({"lines": lines, "follow": str(follow).lower()})
        return self._follow(f"/audit?{query}", None if follow else QUERY_TIMEOUT)

    def pins(self) -> list[PinStatus]:
        return self._get("/pins", Pins).pins

    def pin_differences(self, server: str) -> list[PinDifference]:
        return self._get(f"/pins/{quote(server, safe='')}", PinDifferences).differences

    def approve_pins(self, server: str) -> PinStatus:
        return self._post(f"/pins/{quote(server, safe='')}/approve", None, PinStatus, QUERY_TIMEOUT)

    def tokens(self) -> list[TokenStatus]:
        return self._get("/tokens", Tokens).tokens

    def create_token(self, asked: TokenRequest) -> str:
        return self._post("/tokens", asked, NewToken, QUERY_TIMEOUT).token

    def revoke_token(self, name: str) -> None:
        self._post(f"/tokens/{quote(name, safe='')}/revoke", None, Accepted, QUERY_TIMEOUT)

    def shutdown(self) -> None:
        """Returns when the daemon has taken note; `DaemonStatus.pid` tells when it is gone."""
        self._post("/shutdown", None, Accepted, QUERY_TIMEOUT)

    def events(self, after: int = 0, follow: bool = False) -> EventStream:
        """Connected when this returns: what happens from now on is in it. Ends with the daemon."""
        query = urlencode({"after": after, "follow": str(follow).lower()})
        return EventStream(self._follow(f"/events?{query}", None if follow else QUERY_TIMEOUT))

    def logs(self, name: str, lines: int = 100, follow: bool = False) -> ByteStream:
        """The end of a server's stderr log, in pieces as they come."""
        query = urlencode({"lines": lines, "follow": str(follow).lower()})
        return self._follow(f"/servers/{quote(name, safe='')}/logs?{query}", None if follow else QUERY_TIMEOUT)

    def _command(self, name: str, verb: str) -> Outcome:
        return self._post(f"/servers/{quote(name, safe='')}/{verb}", None, Outcome)

    def _get(self, target: str, kind: type[T]) -> T:
        return self._decoded(self._exchange("GET", target, None, QUERY_TIMEOUT), kind)

    def _post(self, target: str, content: object, kind: type[T], timeout: float = COMMAND_TIMEOUT) -> T:
        body = msgspec.json.encode(content) if content else b""
        return self._decoded(self._exchange("POST", target, body, timeout), kind)

    def _decoded(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise McpdError(
                f"the daemon's answer is not understood ({error}); if mcpd was upgraded since the daemon was started, "
                "restart the daemon"
            ) from error

    def _exchange(self, method: str, target: str, body: bytes | None, timeout: float) -> bytes:
        with self._ask(method, target, body, timeout) as answer:
            return b"".join(answer)

    def _follow(self, target: str, timeout: float | None) -> ByteStream:
        return self._ask("GET", target, None, timeout)

    def _ask(self, method: str, target: str, body: bytes | None, timeout: float | None) -> ByteStream:
        """The answer, whose head has come and is good. Raises NoDaemon and Refused."""
        absent: Exception | None = None
        closed: Exception | None = None
        for place in self.places:
            answer = ByteStream(place, timeout)
            try:
                answer.begin(method, target, body)
            except _ABSENT as error:
                absent = absent or _lost(place, error)
            except PermissionError as error:  # whoever sits there must not keep anybody from the next place
                closed = closed or _lost(place, error)
            except BaseException:
                answer.close()
                raise
            else:
                return answer
        raise closed or absent or NoDaemon("no place is known where a daemon could be")


class ByteStream(Iterator[bytes]):
    """An answer as it comes, to be closed (or used as a context manager); another thread may `hang_up`."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        self._path = path
        self._connection = _UnixConnection(path, timeout)
        self._response: http.client.HTTPResponse | None = None
        self._hung_up = False

    def begin(self, method: str, target: str, body: bytes | None) -> None:
        """Ask. Raises one of _ABSENT if nobody listens, PermissionError if it is not for us, NoDaemon if the daemon
        went away, Refused for its refusal."""
        try:
            self._connection.request(method, target, body)
            self._response = self._connection.getresponse()
        except (*_ABSENT, PermissionError):
            raise
        except (OSError, http.client.HTTPException) as error:
            raise _lost(self._path, error) from error
        if self._response.status >= 300:
            raise Refused(self._response.status, _fault(self._response.status, b"".join(self)))

    def __next__(self) -> bytes:
        assert self._response is not None
        try:
            chunk = self._response.read1(CHUNK)
            if not chunk and self._response.length:  # read1 does not tell that what was promised did not come
                raise http.client.IncompleteRead(b"", self._response.length)
        except (OSError, http.client.HTTPException) as error:
            if self._hung_up:
                raise StopIteration from None
            raise _lost(self._path, error) from error
        if not chunk:
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent; for the thread that reads."""
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def hang_up(self) -> None:
        """The reading ends, now or when it begins; it still has to be closed."""
        self._hung_up = True
        if self._connection.link is not None:
            with contextlib.suppress(OSError):
                self._connection.link.shutdown(socket.SHUT_RDWR)


class EventStream(Iterator[Event | Gap]):
    """Events as they come; as ByteStream."""

    def __init__(self, chunks: ByteStream) -> None:
        self._chunks = chunks
        self._rest = b""
        self._decoder: msgspec.json.Decoder[Event | Gap] = msgspec.json.Decoder(Event | Gap)
        self._ready: deque[Event | Gap] = deque()

    def __next__(self) -> Event | Gap:
        while not self._ready:
            *lines, self._rest = (self._rest + next(self._chunks)).split(b"\n")
            self._ready.extend(self._decoder.decode(line) for line in lines if line)
        return self._ready.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._chunks.close()

    def hang_up(self) -> None:
        self._chunks.hang_up()


_ABSENT: Final = (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)


def _lost(path: Path, error: Exception) -> NoDaemon:
    if isinstance(error, _ABSENT):
        return NoDaemon(f"no daemon is running ({path}: {error.strerror}); start one with `mcpd start`")
    if isinstance(error, PermissionError):
        remedy = "run this as the user that the daemon belongs to, or as a member of its daemon.operator_group"
        return NoDaemon(f"{path}: {error.strerror}; {remedy}")
    if isinstance(error, TimeoutError):
        return NoDaemon(f"{path}: the daemon did not answer in time; see its log")
    return NoDaemon(f"{path}: the daemon went away ({error}); see its log")


def _fault(status: int, body: bytes) -> Fault:
    try:
        return msgspec.json.decode(body, type=Fault)
    except msgspec.MsgspecError:
        return Fault(error=f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}", remedy="see the daemon's log")

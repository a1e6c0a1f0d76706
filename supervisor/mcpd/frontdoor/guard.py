"""What every request passes before anything is done for it: repeated headers, Host, Origin, bearer token.

Host and Origin are what stands between a web page and a server on the user's machine: a page can make the user's
browser connect to loopback (DNS rebinding), but it cannot choose these two headers (MCP transports, Security Warning).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Final

from mcpd.config.settings import FrontdoorSettings
from mcpd.frontdoor.asgi import Header, Headers, Refusal, refusal
from mcpd.frontdoor.auth import Authenticator, Denied
from mcpd.frontdoor.challenge import Challenges
from mcpd.frontdoor.limits import FailureLimit, is_loopback, parse
from mcpd.wire.principal import Principal

CACHED: Final = 256
# Headers that decide something; one that stands twice could be read differently by a proxy before us.
SINGLE: Final = frozenset(
    {
        b"host",
        b"origin",
        b"authorization",
        b"content-length",
        b"content-type",
        b"mcp-session-id",
        b"last-event-id",
    }
)
# Headers that repeat what stands in the body. Said twice they agree with no body: lines are joined by what no line has.
REPEATING: Final = (b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-param-")


class Guard:
    """Checks headers; raises Refusal. Values that were found good are remembered, so that the usual ones cost a look
    into a set."""

    __slots__ = (
        "_authenticator",
        "_challenges",
        "_good_hosts",
        "_good_origins",
        "_hosts",
        "_origins",
        "_proxies",
        "failures",
    )

    def __init__(
        self,
        settings: FrontdoorSettings,
        authenticator: Authenticator,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticator = authenticator
        self._challenges = Challenges(settings)
        self._proxies = [ip_network(one, strict=False) for one in settings.trusted_proxy]
        self.failures = FailureLimit(clock)
        self._hosts = {name.lower().removesuffix(".") for name in (settings.host, *settings.allowed_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}
        self._good_hosts: set[bytes] = set()
        self._good_origins: set[bytes] = set()

    def headers(self, raw: Iterable[Header]) -> dict[bytes, bytes]:
        """The headers by name, after the checks that hold for every request: 400 for a repeated header that must stand
        once or a missing Host, 403 for a Host or Origin that is not ours."""
        raw = raw if isinstance(raw, list) else list(raw)
        headers = dict(raw)
        if len(headers) != len(raw):
            headers = _merged(raw)
        host = headers.get(b"host")
        if host not in self._good_hosts:
            self._check_host(host)
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._good_origins:
            self._check_origin(origin)
        return headers

    def address(self, headers: Headers, peer: tuple[str, int] | None) -> str:
        """Where a request comes from, by what the trusted proxies say if there are any; "" if that is not known.

        403 for a peer that is neither such a proxy nor on this machine.
        """
        if peer is None:
            return ""
        if not self._proxies:
            return peer[0]
        if not self._is_proxy(peer[0]):
            if is_loopback(peer[0]):
                return peer[0]
            raise refusal(403, "connections come through the proxy here; see frontdoor.trusted_proxy of the registry")
        forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        # each proxy adds the address that it saw at the end; what stands before the last foreign one proves nothing
        return next((one for each in reversed(forwarded) if (one := each.strip()) and not self._is_proxy(one)), "")

    def principal(self, headers: Headers, peer: tuple[str, int] | None = None, path: str | bytes = "") -> Principal:
        """Who asks. 401 with a challenge if it is not known (RFC 6750, section 3); 429 for an address that showed wrong
        tokens again and again: then nothing is looked at for a while but what is known to be good, unless it is on this
        machine."""
        if self._proxies or len(self.failures):
            self._check_address(headers, peer)
        authorization = headers.get(b"authorization")
        try:
            principal = self._authenticator.principal(authorization)
        except Denied as denied:
            raise self._denied(headers, peer, path, denied) from None
        if principal is None:
            wrong = Denied("invalid_token", "unknown or expired token") if authorization is not None else None
            raise self._denied(headers, peer, path, wrong)
        return principal

    def good_until(self, headers: Headers) -> float:
        """Until when what a request has shown is good (wall time)."""
        return self._authenticator.good_until(headers.get(b"authorization"))

    def metadata(self, headers: Headers, peer: tuple[str, int] | None, path: str) -> dict[str, object] | None:
        """What is to be known of the authorization server of an endpoint (RFC 9728); None if there is none."""
        proxied = bool(self._proxies) and peer is not None and self._is_proxy(peer[0])
        return self._challenges.metadata(headers, path, proxied=proxied)

    def _check_address(self, headers: Headers, peer: tuple[str, int] | None) -> None:
        address = self.address(headers, peer)
        if is_loopback(address) or not (wait := self.failures.wait(address)):
            return
        # others may share the address: behind a router, or a proxy that is not told of
        if self._authenticator.known(headers.get(b"authorization")) is None:
            raise _too_often(wait)

    def _denied(
        self, headers: Headers, peer: tuple[str, int] | None, path: str | bytes, denied: Denied | None
    ) -> Refusal:
        """What answers somebody without credentials (None), or with some that are worth nothing."""
        if denied is not None and denied.counts:
            address = self.address(headers, peer)
            wait = self.failures.wait(address)
            self.failures.failed(address)
            if wait:
                return _too_often(wait)
        proxied = bool(self._proxies) and peer is not None and self._is_proxy(peer[0])
        return self._challenges.refusal(headers, path, denied, proxied=proxied)

    def _is_proxy(self, address: str) -> bool:
        found = parse(address)
        return found is not None and any(found in network for network in self._proxies)

    def _check_host(self, host: bytes | None) -> None:
        if host is None:
            raise refusal(400, "the Host header is missing")
        name, port = _split_port(host.decode("latin-1").lower())
        if not (_is_loopback(name) or name in self._hosts or (port and f"{_bracketed(name)}:{port}" in self._hosts)):
            raise refusal(
                403, "the Host header names a host that is not served here; see frontdoor.allowed_hosts of the registry"
            )
        _remember(self._good_hosts, host)

    def _check_origin(self, origin: bytes) -> None:
        text = origin.decode("latin-1").lower()
        scheme, _, rest = text.partition("://")
        loopback = scheme in ("http", "https") and _is_loopback(_split_port(rest)[0])
        if not (loopback or text in self._origins or "*" in self._origins):
            raise refusal(
                403, "requests from this Origin are not served; see frontdoor.allowed_origins of the registry"
            )
        _remember(self._good_origins, origin)


def _too_often(wait: float) -> Refusal:
    return refusal(
        429,
        "too many wrong tokens came from this address; see that the client has the right one, then wait",
        headers=((b"retry-after", b"%d" % max(1, round(wait))),),
        limit="auth",
    )


def _merged(raw: list[Header]) -> dict[bytes, bytes]:
    """Headers of which some stand more than once: lists are joined (RFC 9110, section 5.3)."""
    headers: dict[bytes, bytes] = {}
    for name, value in raw:
        if name not in headers:
            headers[name] = value
        elif name in SINGLE:
            raise refusal(400, f"the header {name.decode()} stands twice")
        else:
            headers[name] += (b"\n" if name.startswith(REPEATING) else b", ") + value
    return headers


def _split_port(host: str) -> tuple[str, str]:
    """Name and port of `name`, `name:port`, `[v6]` or `[v6]:port`; an empty name if it is none of these."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", ""
        port = rest[1:]
        given = bool(rest)
    else:
        name, colon, port = host.partition(":")
        given = bool(colon)
    if given and not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        return "", ""
    return name.removesuffix("."), port


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _remember(cache: set[bytes], value: bytes) -> None:
    if len(cache) < CACHED:
        cache.add(value)

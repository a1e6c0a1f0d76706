"""`auth = "jwt"`: signed tokens of an OAuth authorization server, with mcpd as the resource server.

A token counts if one of the issuer's keys has signed it (RFC 7515), and if issuer, audience and times are right
(RFC 7519, RFC 9068); its scopes say which servers it is good for. Keys come from a file or by https, in a thread;
nothing waits for them: a token of a key that is not known is refused, and keys are fetched anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPMessage
from math import inf
from pathlib import Path
from typing import IO, Any, Final, Literal

import jwt
import msgspec
import structlog

from mcpd.config.settings import JwtSettings
from mcpd.frontdoor.auth import Denied
from mcpd.wire.principal import EVERYTHING, Grants, Principal

LONGEST_TOKEN: Final = 16 * 1024
LARGEST_KEYS: Final = 1024 * 1024
MOST_KEYS: Final = 64
LEEWAY: Final = 30.0
"""Seconds by which clocks may differ."""
REMEMBERED: Final = 4096
"""Tokens whose signature is not checked again."""
FETCH_TIMEOUT: Final = 10.0
FRESH: Final = 600.0
"""Seconds after which keys are fetched again."""
GAP: Final = 30.0
"""Seconds between two fetches, whoever wants them: unknown keys are easily made up."""
FILE_LOOK: Final = 5.0
LONGEST_NAME: Final = 128

Keys = Mapping[str, jwt.PyJWK]
log = structlog.get_logger("mcpd.jwt")


class KeyRing:
    """The issuer's keys, by id; `run` keeps them fresh. `on_change` is told when they are others."""

    def __init__(self, source: str, algorithms: Iterable[str]) -> None:
        """`source`: an https URL, or the name of a file."""
        self.keys: Keys = {}
        self.error = "they were not fetched yet"
        self.on_change: Callable[[], None] = lambda: None
        self._source = source
        self._algorithms = frozenset(algorithms)
        self._wanted = asyncio.Event()
        self._seen: tuple[int, int, int] | None = None

    @property
    def is_file(self) -> bool:
        return "://" not in self._source

    def want(self) -> None:
        """A token names a key that is not known: it may be a new one."""
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled. Keys that cannot be fetched stay as they were."""
        while True:
            self._wanted.clear()
            await self.refresh()
            await asyncio.sleep(FILE_LOOK if self.is_file else GAP)
            if not self.is_file:
                try:
                    async with asyncio.timeout(FRESH - GAP if self.keys else GAP):
                        await self._wanted.wait()
                except TimeoutError:
                    pass

    async def refresh(self) -> None:
        """Fetch them now; what goes wrong is told in the log, once."""
        if self.is_file and not self._file_changed():
            return
        try:
            content = await asyncio.to_thread(self._read)
            found = keys_of(content, self._algorithms)
        except (OSError, ValueError) as problem:
            told, self.error = self.error, str(problem) or type(problem).__name__
            if told != self.error:
                log.error("jwt.keys-unusable", source=self._source, reason=self.error, kept=len(self.keys))
            return
        self.error = ""
        if {id: key.key for id, key in self.keys.items()} != {id: key.key for id, key in found.items()}:
            self.keys = found
            self.on_change()
            log.info("jwt.keys", source=self._source, keys=sorted(found))

    def _file_changed(self) -> bool:
        try:
            about = os.stat(self._source)
        except OSError:
            return True  # reading it will say why
        seen = (about.st_ino, about.st_size, about.st_mtime_ns)
        changed, self._seen = seen != self._seen, seen
        return changed

    def _read(self) -> bytes:
        if self.is_file:
            with Path(self._source).open("rb") as file:
                return _bounded(file)
        context = ssl.create_default_context()
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _OnlyHttps())
        request = urllib.request.Request(self._source, headers={"Accept": "application/json"})  # noqa: S310 - https: checked
        with opener.open(request, timeout=FETCH_TIMEOUT) as response:
            return _bounded(response)


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise OSError(f"redirected to {newurl[:100]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _bounded(file: IO[bytes]) -> bytes:
    content = file.read(LARGEST_KEYS + 1)
    if len(content) > LARGEST_KEYS:
        raise ValueError(f"over {LARGEST_KEYS} bytes")
    return content


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def keys_of(content: bytes, algorithms: frozenset[str]) -> Keys:
    """The keys of a JWK set (RFC 7517, section 5) with which such signatures can be checked; the others are left out.

    A key without an id has the id "". Raises ValueError if it is no such set, or if no key is of use.
    """
    try:
        found = msgspec.json.decode(content, type=_KeySet).keys
    except msgspec.MsgspecError as problem:
        raise ValueError(f"no JWK set: {problem}") from None
    usable: dict[str, jwt.PyJWK] = {}
    for each in found[:MOST_KEYS]:
        if each.get("kty") not in ("RSA", "EC", "OKP") or each.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(each)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if key.algorithm_name in algorithms or "alg" not in each:
            usable[str(each.get("kid", ""))] = key
    if not usable:
        raise ValueError("no key in it is of use here")
    return usable


class JwtAuthenticator:
    """Tells whose token it is. Signatures that were good are remembered until the token expires, or keys change."""

    def __init__(self, settings: JwtSettings, ring: KeyRing, wall: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._ring = ring
        self._wall = wall
        self._algorithms = list(settings.algorithms)
        self._known: dict[bytes, tuple[Principal, float]] = {}
        ring.on_change = self._known.clear

    def principal(self, authorization: bytes | None) -> Principal | None:
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        token = authorization[7:].strip()
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is not None:
            if known[1] <= self._wall():
                del self._known[digest]
                raise _expired()
            return known[0]
        claims = self._claims(token)
        principal = Principal(self._name(claims), self._grants(claims))
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[digest] = (principal, float(claims["exp"]) + LEEWAY)
        return principal

    def known(self, authorization: bytes | None) -> Principal | None:
        known = self._remembered(authorization)
        return None if known is None or known[1] <= self._wall() else known[0]

    def good_until(self, authorization: bytes | None) -> float:
        known = self._remembered(authorization)
        return inf if known is None else known[1]

    def _remembered(self, authorization: bytes | None) -> tuple[Principal, float] | None:
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        return self._known.get(hashlib.sha256(authorization[7:].strip()).digest())

    def _claims(self, token: bytes) -> dict[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise Denied("invalid_token", "the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(header.get("kid", ""))
            if header["alg"] not in self._algorithms or not _fits(key, header["alg"]):
                raise Denied("invalid_token", "the token is not signed as it has to be")
            claims = jwt.decode(
                token,
                key=key.key,
                algorithms=[header["alg"]],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise _expired() from None
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError) as problem:
            raise Denied("invalid_token", _why(problem)) from None
        if not isinstance(claims["exp"], int | float):
            raise Denied("invalid_token", "exp is no time")
        return claims

    def _key(self, id: object) -> jwt.PyJWK:
        keys = self._ring.keys
        found = keys.get(id) if isinstance(id, str) else None
        if found is None and id == "" and len(keys) == 1:
            found = next(iter(keys.values()))
        if found is not None:
            return found
        if not keys:
            raise Denied("", f"the keys of the issuer are not there: {self._ring.error}", status=503)
        self._ring.want()
        raise Denied("invalid_token", "the token is signed by a key that is not known")

    def _name(self, claims: Mapping[str, Any]) -> str:
        name = claims.get(self._settings.principal)
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise Denied("invalid_token", f"the claim {self._settings.principal} is missing, or no name")
        return f"jwt:{name}"

    def _grants(self, claims: Mapping[str, Any]) -> Grants:
        if not self._settings.scopes:
            return EVERYTHING
        entries: set[str] = set()
        for scope in scopes_of(claims):
            granted = self._settings.scopes.get(scope, ())
            if granted == "*":
                return EVERYTHING
            entries.update(granted)
        if not entries:
            needed = " ".join(self._settings.scopes)
            raise Denied("insufficient_scope", "none of the token's scopes is good for anything here", 403, needed)
        servers = frozenset(entry for entry in entries if "/" not in entry)
        pairs = {(server, tool) for server, _, tool in (entry.partition("/") for entry in entries) if tool}
        tools = frozenset((server, tool) for server, tool in pairs if server not in servers)
        return Grants(servers=servers, tools=tools or None)


def _expired() -> Denied:
    return Denied("invalid_token", "the token has expired", counts=False)


def scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """The scopes of a token: `scope` (RFC 8693, section 4.2), or `scp`, which some servers send as a list."""
    for claim in ("scope", "scp"):
        value = claims.get(claim)
        if isinstance(value, str):
            return value.split()
        if isinstance(value, list):
            return [each for each in value if isinstance(each, str)]
    return []


def _fits(key: jwt.PyJWK, algorithm: str) -> bool:
    """Whether a key may be used with an algorithm: another kind could be made to check what it never signed."""
    kinds: dict[str, Literal["RSA", "EC", "OKP"]] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
    return key.key_type == kinds.get(algorithm[:2]) and key._jwk_data.get("alg", algorithm) == algorithm


def _why(problem: Exception) -> str:
    match problem:
        case jwt.InvalidAudienceError():
            return "the token is for somebody else"
        case jwt.InvalidIssuerError():
            return "the token is of another issuer"
        case jwt.ImmatureSignatureError():
            return "the token is not good yet"
        case jwt.MissingRequiredClaimError(claim=claim):
            return f"the claim {claim} is missing"
        case jwt.InvalidSignatureError():
            return "the signature is wrong"
    return "this is no signed token"

"""The bearer tokens that let clients in at the front door: a default one, made at the first start, and named ones."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec

from mcpd.errors import ConfigError, Problem

TOKEN_FILE: Final = "token"  # noqa: S105 - the name of the file
NAMED_FILE: Final = "tokens.jsonl"
LARGEST_FILE: Final = 4 * 2**20
DEFAULT_PRINCIPAL: Final = "default"
ENTROPY_BYTES: Final = 32
SHORTEST: Final = 20
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1: b64token


@dataclass(frozen=True, slots=True)
class Token:
    """A named token, as it is kept: its digest, never itself. What it may use: None where nothing was named."""

    name: str
    digest: bytes
    created: float
    expires: float | None = None
    servers: tuple[str, ...] | None = None
    views: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None  # as SERVER/TOOL


class TokenVerifier:
    """Tells whose token a presented one is. Holds digests only, never a token."""

    __slots__ = ("_fixed", "_known", "_wall")

    def __init__(self, tokens: Mapping[str, bytes], wall: Callable[[], float] = time.time) -> None:
        """`tokens`: principal -> token, for those that never expire. `wall`: the time by which the others do."""
        self._fixed = {digest_of(token): (principal, math.inf) for principal, token in tokens.items()}
        self._known = dict(self._fixed)
        self._wall = wall

    def set_named(self, tokens: Iterable[Token]) -> None:
        """The named tokens that there are from now on."""
        named = {one.digest: (one.name, math.inf if one.expires is None else one.expires) for one in tokens}
        self._known = {**named, **self._fixed}

    def verify(self, presented: bytes) -> str | None:
        """The principal of this token, or None.

        The time that it takes tells nothing of a wrong one: digests are looked up by a hash that is keyed anew in each
        process (SipHash), and compared only with one whose hash is the same.
        """
        digest = hashlib.sha256(presented).digest()
        known = self._known.get(digest)
        if known is None or (known[1] is not math.inf and known[1] <= self._wall()):
            return None
        return known[0]


class TokenFile:
    """The named tokens, in one private file; every change is on the disk when its method returns.

    Raises ConfigError if the file cannot be used.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAMED_FILE
        self._tokens = {one.name: one for one in _parse(self.path)}

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens.values())

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, name: str) -> bool:
        return name in self._tokens

    def add(self, token: Token) -> None:
        """Keep one more, in the place of an older one of that name."""
        self._write({**self._tokens, token.name: token})

    def remove(self, name: str) -> Token | None:
        """Forget one; returns it, None if there is none of that name."""
        found = self._tokens.get(name)
        if found is not None:
            self._write({key: one for key, one in self._tokens.items() if key != name})
        return found

    def _write(self, tokens: dict[str, Token]) -> None:
        lines = [msgspec.json.encode(_Line(**{**asdict(one), "digest": one.digest.hex()})) for one in tokens.values()]
        aside = self.path.with_name(f".{NAMED_FILE}.{secrets.token_hex(8)}")
        try:
            _write(aside, b"".join(line + b"\n" for line in lines))
            os.replace(aside, self.path)
            _sync(self.path.parent)
        except OSError as problem:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            message = f"cannot be written: {problem.strerror}"
            raise _unusable(self.path, message, "make room, and the state directory writable") from None
        self._tokens = tokens


def new_token() -> bytes:
    """A token of 256 random bits."""
    return secrets.token_urlsafe(ENTROPY_BYTES).encode()


def digest_of(token: bytes) -> bytes:
    """What is kept of a token. It has so much entropy of its own that no salt is needed."""
    return hashlib.sha256(token).digest()


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """A Token as a line of JSON; the digest in hex."""

    name: str
    digest: str
    created: float
    expires: float | None
    servers: tuple[str, ...] | None
    views: tuple[str, ...] | None
    tools: tuple[str, ...] | None


_LINE = msgspec.json.Decoder(_Line)


def _parse(path: Path) -> Iterator[Token]:
    content = _content(path, LARGEST_FILE)
    for number, line in enumerate((content or b"").splitlines(), 1):
        try:
            found = _LINE.decode(line)
            yield Token(**{**msgspec.structs.asdict(found), "digest": bytes.fromhex(found.digest)})
        except (msgspec.MsgspecError, ValueError):
            message = f"has no token in line {number}"
            raise _unusable(path, message, "remove the line; `mcpctl token create` makes new ones") from None


def path_of(state_dir: Path) -> Path:
    """Where the default token is kept."""
    return state_dir / TOKEN_FILE


def read_or_create(state_dir: Path) -> bytes:
    """The default token; at the first start a new one of 256 random bits is written, mode 0600.

    Raises ConfigError if the file cannot be read or written, may be read by others, or holds no usable token.
    """
    path = path_of(state_dir)
    try:
        return read(state_dir)
    except FileNotFoundError:
        pass
    token = new_token()
    aside = path.with_name(f".{TOKEN_FILE}.{secrets.token_hex(8)}")
    try:
        _write(aside, token + b"\n")
        try:
            os.link(aside, path)  # unlike rename(2) it never replaces a token that somebody else made meanwhile
        except FileExistsError:
            return read(state_dir)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
    except OSError as problem:
        raise _unusable(
            path, f"cannot be written: {problem.strerror}", "make room, and the state directory writable"
        ) from None
    return token


def read(state_dir: Path) -> bytes:
    """The default token. Raises FileNotFoundError if none was made yet, ConfigError if it cannot be used."""
    path = path_of(state_dir)
    content = _content(path, 4096)
    if content is None:
        raise FileNotFoundError(path)
    token = content.strip()
    if len(token) < SHORTEST or _TOKEN.fullmatch(token) is None:
        raise _unusable(
            path,
            f"does not hold a bearer token of at least {SHORTEST} characters",
            "delete it; a new token is made at the next start",
        )
    return token


def _content(path: Path, limit: int) -> bytes | None:
    """What a private file holds; None if it is not there. Raises ConfigError if it cannot be trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise _unusable(path, f"cannot be opened: {problem.strerror}", "see its owner and mode") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _unusable(path, "is not a regular file", "move it away; a new one is made at the next start")
        if mode & 0o077:
            raise _unusable(
                path,
                f"has mode {stat.S_IMODE(mode):04o}, so that others may have read the token",
                "delete it and start again for a new token, or chmod 600 if nobody did",
            )
        content = os.read(descriptor, limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise _unusable(path, f"is larger than {limit} bytes", "move it away")
    return content


def _sync(directory: Path) -> None:
    """Make a rename last (fsync(2))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _unusable(path: Path, message: str, remedy: str) -> ConfigError:
    return ConfigError(Problem(path, None, "", f"the token file {message}", remedy))

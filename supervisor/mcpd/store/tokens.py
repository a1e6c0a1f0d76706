"""The bearer token that lets clients in at the front door: one file, made at the first start."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from mcpd.errors import ConfigError, Problem

TOKEN_FILE: Final = "token"  # noqa: S105 - the name of the file
DEFAULT_PRINCIPAL: Final = "default"
ENTROPY_BYTES: Final = 32
SHORTEST: Final = 20
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1: b64token


class TokenVerifier:
    """Tells whose token a presented one is. Holds digests only, never a token."""

    __slots__ = ("_digests",)

    def __init__(self, tokens: dict[str, bytes]) -> None:
        """`tokens`: principal -> token."""
        self._digests = [(principal, hashlib.sha256(token).digest()) for principal, token in tokens.items()]

    def verify(self, presented: bytes) -> str | None:
        """The principal of this token, or None. Takes the same time whatever is wrong with it."""
        digest = hashlib.sha256(presented).digest()
        found: str | None = None
        for principal, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = principal
        return found


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
    token = secrets.token_urlsafe(ENTROPY_BYTES).encode()
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
        raise _unusable(path, f"cannot be written: {problem.strerror}", "make the state directory writable") from None
    return token


def read(state_dir: Path) -> bytes:
    """The default token. Raises FileNotFoundError if none was made yet, ConfigError if it cannot be used."""
    path = path_of(state_dir)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise _unusable(path, f"cannot be opened: {problem.strerror}", "see its owner and mode") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _unusable(path, "is not a regular file", "move it away; a new token is made at the next start")
        if mode & 0o077:
            raise _unusable(
                path,
                f"has mode {stat.S_IMODE(mode):04o}, so that others may have read the token",
                "delete it and start again for a new token, or chmod 600 if nobody did",
            )
        token = os.read(descriptor, 4096).strip()
    finally:
        os.close(descriptor)
    if len(token) < SHORTEST or _TOKEN.fullmatch(token) is None:
        raise _unusable(
            path,
            f"does not hold a bearer token of at least {SHORTEST} characters",
            "delete it; a new token is made at the next start",
        )
    return token


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _unusable(path: Path, message: str, remedy: str) -> ConfigError:
    return ConfigError(Problem(path, None, "", f"the token file {message}", remedy))

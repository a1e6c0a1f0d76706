"""Listening sockets, bound before anything is served, so that ports are known and errors are clear."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Final

from mcpd.errors import ConfigError, Problem
from mcpd.frontdoor.limits import is_loopback

BACKLOG: Final = 1024
FIRST_INHERITED: Final = 3  # sd_listen_fds(3), SD_LISTEN_FDS_START
LONGEST_UNIX_PATH: Final = 107  # unix(7), sun_path without its NUL


def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`; with port 0 all on the same one that the kernel chose.

    Raises ConfigError if that is impossible.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as problem:
        raise _unusable("frontdoor.host", f"{host!r} is no address of this machine: {problem.strerror}") from None
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            bound.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = bound[0].getsockname()[1] if port == 0 and len(bound) > 1 else port
            listening.bind((address[0], chosen, *address[2:]))
            listening.listen(BACKLOG)
            listening.setblocking(False)
    except OSError as problem:
        for listening in bound:
            listening.close()
        raise _cannot_bind(host, port, problem) from None
    return bound


def _cannot_bind(host: str, port: int, problem: OSError) -> ConfigError:
    if problem.errno == errno.EADDRINUSE:
        return _unusable(
            "frontdoor.port",
            f"port {port} of {host} is taken by another program",
            f"`ss -ltnp sport = :{port}` shows which; stop it or choose another port",
        )
    if problem.errno == errno.EACCES:
        return _unusable("frontdoor.port", f"port {port} is reserved for root", "choose one above 1023")
    return _unusable("frontdoor.host", f"cannot listen on {host} port {port}: {problem.strerror}")


def url_of(listening: socket.socket, tls: bool = False) -> str:
    """The base URL under which a listening TCP socket is reached from this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if listening.family == socket.AF_INET else "::1"
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def inherited(environ: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The listening sockets that a service manager passed, with their names (sd_listen_fds(3)).

    The variables are removed, so that no child takes them for its own; the sockets are not inherited further.
    """
    count = _passed_to_us(environ)
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environ.pop(variable, None)
    sockets: list[tuple[str, socket.socket]] = []
    for offset in range(count):
        descriptor = FIRST_INHERITED + offset
        os.set_inheritable(descriptor, False)
        passed = socket.socket(fileno=descriptor)
        passed.setblocking(False)
        sockets.append((names[offset] if offset < len(names) else "unknown", passed))
    return sockets


def check_passed(listening: Iterable[socket.socket], *, encrypted: bool, asking: bool) -> None:
    """Raise ConfigError for a socket that other machines reach, unless what goes there is `encrypted` (by us or by a
    proxy), and who comes is asked for a token (`asking`): what `config.checks` says of sockets that we bind."""
    for one in listening:
        if one.family not in (socket.AF_INET, socket.AF_INET6) or is_loopback(host := one.getsockname()[0]):
            continue
        reached = f"the service manager passed a socket on {host}, which other machines reach"
        if not asking:
            why = f'{reached}, and auth = "none" lets everybody in'
            raise _unusable("frontdoor.auth", why, 'use "token" or "jwt", or a socket on 127.0.0.1')
        if not encrypted:
            remedy = "set tls_cert and tls_key, or trusted_proxy"
            raise _unusable("frontdoor.tls_cert", f"{reached} unencrypted", remedy)


def _passed_to_us(environ: Mapping[str, str]) -> int:
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    count = environ.get("LISTEN_FDS", "")
    return int(count) if count.isdecimal() and len(count) < 4 else 0


class UnixSocket:
    """A listening unix socket, 0600, or 0660 for a group; its file is removed by `close` if it is still ours.

    The caller holds the lock that says that no other daemon runs (docs/faults.md, 33 and 34): a socket file on which
    nobody answers is a leftover, and replaced. Anything else at that path is left alone.
    """

    def __init__(self, path: Path, gid: int | None = None) -> None:
        """Raises ConfigError if the path cannot be used, or not be given to the group."""
        if len(os.fsencode(path)) > LONGEST_UNIX_PATH:
            raise _no_socket(path, f"is longer than {LONGEST_UNIX_PATH} bytes", "set a shorter daemon.runtime_dir")
        _remove_leftover(path)
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(0o177)  # there must be no moment in which others could connect
        try:
            self.socket.bind(os.fspath(path))
            self._inode = os.lstat(path).st_ino
            if gid is not None:
                _give(path, gid)
            self.socket.listen(BACKLOG)
            self.socket.setblocking(False)
        except OSError as problem:
            self.socket.close()
            raise _no_socket(path, f"cannot be made: {problem.strerror}", "see its directory") from None
        except ConfigError:
            self.socket.close()
            raise
        finally:
            os.umask(umask)

    def close(self) -> None:
        """Stop listening and remove the file."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)


def _give(path: Path, gid: int) -> None:
    try:
        os.chown(path, -1, gid)
        os.chmod(path, 0o660)
    except PermissionError:
        os.unlink(path)
        message = f"cannot be given to group {gid}: its members are others than this user"
        raise _no_socket(path, message, "make the daemon's user a member of the group") from None


def _remove_leftover(path: Path) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise _no_socket(path, f"cannot be looked at: {problem.strerror}", "see its directory") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise _no_socket(path, "is there already, and is not a socket", "move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except OSError as problem:  # EAGAIN: somebody listens, whose queue is full
            raise _no_socket(path, f"belongs to somebody: {problem.strerror}", "stop the other daemon") from None
        else:
            raise _no_socket(path, "is served by another process", "stop the other daemon")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _no_socket(path: Path, message: str, remedy: str) -> ConfigError:
    return ConfigError(Problem(path, None, "", f"the socket {message}", remedy))


def _unusable(key: str, message: str, remedy: str = "set another one in the registry") -> ConfigError:
    return ConfigError(Problem(None, None, key, message, remedy))

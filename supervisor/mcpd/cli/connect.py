"""`mcpctl connect`: an MCP server on stdin and stdout that is a view of the daemon's.

What a desktop client's configuration names, so one of it runs for each client and server, all day: standard library
only, no asyncio, small and quickly there. It finds the daemon's socket here; `stdio_relay` does the rest.
"""

from __future__ import annotations

# the modules on top of these two load as much as everything else here together
import _signal  # type: ignore[import-not-found]
import _socket
import errno
import os
import select
import sys
import time

from mcpd.cli.daemon_link import UNAVAILABLE, Ended
from mcpd.cli.pipes import say
from mcpd.cli.stdio_relay import StdioRelay
from mcpd.control.trust import is_trusted

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would take a tenth of the time that starting takes
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final, NoReturn

USAGE_ERROR: Final = 2
BAD_CONFIGURATION: Final = 78  # EX_CONFIG (sysexits.h)
SOCKET_NAME: Final = "mcp.sock"
SYSTEM_RUNTIME_DIR: Final = "/run/mcpd"  # where systemd/mcpd.service has it
SPAWN_TIMEOUT: Final = 30.0
SPAWN_GRACE: Final = 2.0
SPAWN_POLL: Final = 0.02
CONNECT_TIMEOUT: Final = 5.0
_PEER_CREDENTIALS: Final = 12  # struct ucred: pid, uid, gid (unix(7))

USAGE: Final = """\
usage: mcpctl connect [NAME | --view VIEW] [--socket PATH | --config FILE] [--spawn]

Speak MCP on stdin and stdout with the servers that mcpd runs: all of them, the one called NAME, or a view of the
registry. This is what a client's configuration names as its command.

  --view VIEW    a view of the registry ([views.VIEW])
  --socket PATH  the daemon's mcp.sock, if it is not where the registry or the environment say
  --config FILE  the registry that the daemon runs with
  --spawn        start the daemon if none is running

Exit codes: 0 the client is done, 1 failed, 2 usage, 69 no daemon, 78 bad configuration.
"""


class Misuse(Exception):
    """The command line cannot be understood; the text says why."""


class Options:
    """The command line of `mcpctl connect`."""

    __slots__ = ("config", "help", "socket", "spawn", "view")

    def __init__(self) -> None:
        self.view = "all"
        self.socket: str | None = None
        self.config: str | None = None
        self.spawn = False
        self.help = False


def main(argv: Sequence[str]) -> int:
    """Run `mcpctl connect` with these arguments; return its exit code."""
    try:
        options = parse(argv)
    except Misuse as misuse:
        say(f"{misuse}; see mcpctl connect --help")
        return USAGE_ERROR
    if options.help:
        os.write(1, USAGE.encode())
        return 0
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_DFL)  # nothing is to be saved: the daemon sees the connection close
    try:
        places = socket_paths(options, os.environ, os.getuid())
    except ValueError as problem:
        unreadable = Ended(BAD_CONFIGURATION, str(problem))
        return StdioRelay(options.view, lambda: _fail(unreadable)).run()
    start = (lambda: spawn(options.config, places)) if options.spawn else None
    return StdioRelay(options.view, lambda: reach(places), start).run()


def _fail(ended: Ended) -> NoReturn:
    raise ended


def parse(argv: Sequence[str]) -> Options:
    """The options of a command line; raises Misuse. (argparse alone would take a quarter of the time to start.)"""
    options = Options()
    views: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in ("--view", "--socket", "--config"):
            if not equals:
                if not rest:
                    raise Misuse(f"{name} needs a value")
                value = rest.pop(0)
            if name == "--view":
                views.append(f"view:{value}")
            elif name == "--socket":
                options.socket = value
            else:
                options.config = value
        elif word == "--spawn":
            options.spawn = True
        elif word in ("-h", "--help"):
            options.help = True
        elif word.startswith("-"):
            raise Misuse(f"there is no option {name}")
        else:
            views.append(f"server:{word}")
    if len(views) > 1:
        raise Misuse("one server or one view at a time")
    if options.socket is not None and (options.config is not None or options.spawn):
        raise Misuse("--socket goes with neither --config nor --spawn")
    options.view = views[0] if views else "all"
    return options


def socket_paths(options: Options, environ: Mapping[str, str], uid: int) -> list[str]:
    """Where the daemon's socket may be, likeliest first: the rule of [daemon] runtime_dir in docs/registry.md.

    Clients start this program with hardly any environment, so without XDG_RUNTIME_DIR its usual value counts too.
    Raises ValueError if the registry cannot be read.
    """
    if options.socket is not None:
        return [options.socket]
    named = environ.get("MCPD_DAEMON__RUNTIME_DIR") or environ.get("MCPD_RUNTIME_DIR")
    if not named:
        named = _runtime_dir_of(_registry(options.config, environ))
    if named:
        return [os.path.join(named, SOCKET_NAME)]
    directories = []
    if given := environ.get("RUNTIME_DIRECTORY"):
        directories.append(given.partition(":")[0])  # systemd.exec(5): several are separated by colons
    if given := environ.get("XDG_RUNTIME_DIR"):
        directories.append(os.path.join(given, "mcpd"))
    directories += [f"/run/user/{uid}/mcpd", f"/tmp/mcpd-{uid}", SYSTEM_RUNTIME_DIR]  # noqa: S108 - the owner is checked
    return [os.path.join(directory, SOCKET_NAME) for directory in dict.fromkeys(directories)]


def _registry(explicit: str | None, environ: Mapping[str, str]) -> str | None:
    """The registry file, by the search order of docs/registry.md."""
    if explicit is not None:
        return explicit
    if named := environ.get("MCPD_CONFIG"):
        return named
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    for path in (os.path.join(home, "mcpd", "mcpd.toml"), "/etc/mcpd/mcpd.toml"):
        if os.path.exists(path):
            return path
    return None


def _runtime_dir_of(path: str | None) -> str | None:
    """`daemon.runtime_dir` of a registry file, if it has one."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            data = file.read()
    except PermissionError:
        return None  # a registry that only the daemon may read: its socket is where the defaults say
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror}; name the registry with --config") from None
    if b"runtime_dir" not in data:
        return None
    if (plain := _plain_runtime_dir(data)) is not None:
        return _below(path, plain)
    import tomllib  # costs more than everything else here together

    try:
        value = tomllib.loads(data.decode()).get("daemon", {}).get("runtime_dir")
    except ValueError as problem:
        value = _apparent_runtime_dir(data)
        if value is None:
            raise ValueError(f"{path}: {problem}; mcpd check says more") from None
    if value is None:
        return None
    return _below(path, str(value))


def _below(registry: str, path: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(registry)), os.path.expanduser(path))


def _plain_runtime_dir(data: bytes) -> str | None:
    """The key where it is written as it always is: once, on a line of its own in [daemon], as a plain string. None if a
    parser has to say (a text of several lines may hold anything that looks like this)."""
    if data.count(b"runtime_dir") != 1 or b'"""' in data or b"'''" in data:
        return None
    table = b""
    for line in data.split(b"\n"):
        line = line.strip()
        if line.startswith(b"["):
            table = line
        elif line.startswith(b"runtime_dir"):
            key, _, value = line.partition(b"=")
            value = value.strip()
            quote, inner = value[:1], value[1:-1]
            whole = len(value) > 2 and quote in (b'"', b"'") and value[-1:] == quote
            if table != b"[daemon]" or key.strip() != b"runtime_dir" or not whole:
                return None
            return inner.decode(errors="surrogateescape") if b"\\" not in inner and quote not in inner else None
    return None


def _apparent_runtime_dir(data: bytes) -> str | None:
    """What a broken registry seems to say: whoever is in the middle of editing one can still reach the daemon that
    runs, and be told by it what is wrong."""
    import re

    found = re.search(rb"""^[ \t]*runtime_dir[ \t]*=[ \t]*(?:"([^"\\\r\n]+)"|'([^'\r\n]+)')""", data, re.MULTILINE)
    return (found[1] or found[2]).decode(errors="surrogateescape") if found else None


def reach(places: Sequence[str]) -> _socket.socket:
    """A connection to the daemon at the first of these places where one listens.

    Raises Ended (69) if there is none that is for us and to be trusted.
    """
    refused = closed = ""
    for path in places:
        link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            link.settimeout(CONNECT_TIMEOUT)
            link.connect(path)
            check_peer(link, path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as problem:
            link.close()
            refused = refused or f"{path}: {problem.strerror}"
        except PermissionError as problem:
            link.close()
            closed = closed or f"{path}: {problem.strerror}"
        except BaseException:
            link.close()
            raise
        else:
            return link
    if closed:
        raise Ended(UNAVAILABLE, f"{closed}; be the daemon's user, or a member of its daemon.client_group")
    raise Ended(UNAVAILABLE, f"no mcpd is running ({refused}); start one with mcpd start, or use --spawn")


def check_peer(link: _socket.socket, path: str) -> None:
    """Raise PermissionError unless the daemon can be believed to be the one that is meant (`trust`)."""
    uid = peer_uid(link)
    if not is_trusted(path, uid):
        raise PermissionError(errno.EPERM, f"belongs to user {uid}, to whom root has not given the directory", path)


def peer_uid(link: _socket.socket) -> int:
    """Whose process listens at the other end (unix(7), SO_PEERCRED)."""
    credentials = link.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _PEER_CREDENTIALS)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def spawn(config: str | None, places: Sequence[str], command: Sequence[str] | None = None) -> _socket.socket:
    """Start a daemon and wait until it listens.

    Raises Ended (69) if it ended, or does not listen within SPAWN_TIMEOUT.
    """
    argv = list(command or (sys.executable, "-m", "mcpd", "start", "--detach"))
    if config is not None:
        argv += ["--config", os.path.abspath(config)]
    quiet = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, 2, 1),  # stdout is the client's
    ]
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=quiet, setpgroup=0)
    return _await_socket(pid, lambda: reach(places))


def _await_socket(pid: int, attempt: Callable[[], _socket.socket]) -> _socket.socket:
    status: int | None = None
    deadline = time.monotonic() + SPAWN_TIMEOUT
    while time.monotonic() < deadline:
        try:
            return attempt()
        except Ended:
            pass  # not yet
        if status is None:
            found, raw = os.waitpid(pid, os.WNOHANG)
            if found and (status := os.waitstatus_to_exitcode(raw)) != 0:
                # it may have found another one that was just starting, whose socket is to be seen soon
                deadline = min(deadline, time.monotonic() + SPAWN_GRACE)
        select.select((), (), (), SPAWN_POLL)
    if status:
        raise Ended(UNAVAILABLE, f"mcpd could not be started (exit code {status}); mcpd check says why")
    raise Ended(UNAVAILABLE, f"mcpd was started but did not listen within {SPAWN_TIMEOUT:.0f} s")

"""What the tables of a registry mean together: rules that no single key can break alone."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from mcpd.config.positions import KeyPath
from mcpd.config.registry import BUILT_IN_PROFILES, RestartPolicy, SandboxSettings, ServerSpec, ViewSpec
from mcpd.config.settings import DaemonSettings, FrontdoorSettings
from mcpd.config.suggest import did_you_mean

LONGEST_SOCKET_PATH: Final = 107  # unix(7): sun_path holds 108 bytes, the last of them NUL
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+", re.IGNORECASE)
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 6749, section 3.3
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+)(?::(?:[0-9]+|\*))?")


class Finding(msgspec.Struct, frozen=True):
    """A rule that is broken: at which key of the table under check, what, and the way out.

    `missing`: what the key names is not there on this machine, which can change while the registry does not.
    """

    key: KeyPath
    message: str
    remedy: str
    fatal: bool = True
    missing: bool = False


def check_daemon(settings: DaemonSettings) -> Iterator[Finding]:
    longest = len(bytes(settings.runtime_dir / "control.sock"))
    if longest > LONGEST_SOCKET_PATH:
        message = f"sockets in {settings.runtime_dir} have paths of {longest} bytes; {LONGEST_SOCKET_PATH} are possible"
        yield Finding(("runtime_dir",), message, "set a shorter daemon.runtime_dir")
    for key in ("client_group", "operator_group"):
        group = getattr(settings, key)
        if group is not None:
            yield from _check_group(key, group)


def _check_group(key: str, group: str) -> Iterator[Finding]:
    """A group that a socket is to be given to: chown(2) lets only root give it to one that it is not in itself."""
    try:
        gid = gid_of(group)
    except KeyError:
        yield Finding((key,), f"there is no group {group!r}", f"make it (`groupadd {group}`), or name another one")
        return
    if os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        remedy = "make this user a member of it, log in anew, and start the daemon again"
        yield Finding((key,), f"only members of group {group!r}, and root, can give it a socket", remedy)


def gid_of(group: str) -> int:
    """The id of a group that is named, or written as a number. Raises KeyError."""
    return int(group) if group.isascii() and group.isdigit() else grp.getgrnam(group).gr_gid


def check_sandbox(settings: SandboxSettings) -> Iterator[Finding]:
    """Who servers run as; a daemon that is not root can run them as nobody but itself."""
    if settings.run_as == "dynamic":
        return
    try:
        uid = pwd.getpwnam(settings.run_as).pw_uid
    except KeyError:
        remedy = 'make the user, or write run_as = "dynamic"'
        yield Finding(("run_as",), f"there is no user {settings.run_as!r}", remedy)
        return
    if uid == 0:
        yield Finding(("run_as",), "servers never run as root", 'name another user, or write run_as = "dynamic"')
    elif os.geteuid() not in (0, uid):
        yield Finding(("run_as",), "only root can run servers as somebody else", "remove the key")


def check_frontdoor(settings: FrontdoorSettings) -> Iterator[Finding]:
    if settings.max_call_time < settings.call_timeout:
        yield Finding(("max_call_time",), "is shorter than call_timeout", "make it at least as long")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        present, absent = ("tls_key", "tls_cert") if settings.tls_cert is None else ("tls_cert", "tls_key")
        yield Finding((present,), f"is set without {absent}", f"set {absent} too")
    yield from _check_bind(settings)
    if settings.auth == "jwt":
        yield from _check_jwt(settings)
    for index, origin in enumerate(settings.allowed_origins):
        if _ORIGIN.fullmatch(origin) is None:
            message = f"{origin!r} is not an origin"
            yield Finding(
                ("allowed_origins", index), message, 'write "https://HOST" or "https://HOST:PORT", no path, no "*"'
            )
    for index, host in enumerate(settings.allowed_hosts):
        if _HOST.fullmatch(host) is None or host == "*":
            message = f"{host!r} is not a host"
            yield Finding(
                ("allowed_hosts", index), message, 'write "HOST", "HOST:PORT" or "HOST:*", no scheme, no path'
            )


def is_loopback(host: str) -> bool:
    """Whether a bind to `host` is reachable from this machine only. Names may resolve to anything, so they are not."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_bind(settings: FrontdoorSettings) -> Iterator[Finding]:
    """What leaves this machine is encrypted, by us or by a proxy, and asks who is there."""
    for index, proxy in enumerate(settings.trusted_proxy):
        try:
            ip_network(proxy, strict=False)
        except ValueError:
            message = f"{proxy!r} is neither an address nor a network"
            yield Finding(("trusted_proxy", index), message, 'write "10.0.0.5" or "10.1.0.0/16"')
    if settings.auth == "none" and settings.trusted_proxy:
        message = 'auth = "none" lets in everybody whom the proxy lets in, from other machines too'
        yield Finding(("auth",), message, "see that the proxy asks who is there", fatal=False)
    if is_loopback(settings.host):
        return
    if settings.tls_cert is None and settings.tls_key is None and not settings.trusted_proxy:
        yield Finding(
            ("host",),
            f"{settings.host!r} is reachable from other machines, and tokens would travel there unencrypted",
            "set tls_cert and tls_key, or trusted_proxy for a proxy that does TLS, or listen on 127.0.0.1",
        )
    if settings.auth == "none":
        message = 'auth = "none" lets everybody in who can connect, which other machines can'
        yield Finding(("auth",), message, 'use "token" or "jwt", or listen on 127.0.0.1')


def check_tls(settings: FrontdoorSettings) -> Iterator[Finding]:
    """The files are there. Whether they are good and belong together is seen when they are used."""
    for key, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        if path is not None and not os.access(path, os.R_OK):
            what = "cannot be read" if os.path.exists(path) else "does not exist"
            yield Finding((key,), f"{path} {what}", "name a PEM file that mcpd's user can read")


def _check_jwt(settings: FrontdoorSettings) -> Iterator[Finding]:
    jwt = settings.jwt
    for key, value, example in (
        ("issuer", jwt.issuer, 'issuer = "https://login.example"'),
        ("audience", jwt.audience, 'audience = "https://mcp.example"'),
        ("jwks", jwt.jwks, 'jwks = "https://login.example/.well-known/jwks.json", or a file'),
    ):
        if not value:
            yield Finding(("jwt", key), 'is needed for auth = "jwt"', f"write {example}")
    if "://" in jwt.jwks and not jwt.jwks.startswith("https://"):
        yield Finding(("jwt", "jwks"), "keys are fetched by https only", "write an https URL, or the name of a file")
    if jwt.resource and not jwt.resource.startswith(("https://", "http://")):
        yield Finding(("jwt", "resource"), f"{jwt.resource!r} is no URL", 'write "https://HOST" as clients see it')
    if not jwt.algorithms:
        yield Finding(("jwt", "algorithms"), "no signature would do", "name some, or remove the key")
    for scope in jwt.scopes:
        if _SCOPE.fullmatch(scope) is None:
            yield Finding(("jwt", "scopes", scope), f"{scope!r} is no scope", "use no blanks, quotes or backslashes")


def check_sources(given: Sequence[str]) -> Iterator[Finding]:
    """A server says exactly once what is to be run; `given` are the keys that do."""
    if not given:
        yield Finding((), "nothing says what to run", "set one of script, command and package")
    elif len(given) > 1:
        yield Finding((given[-1],), f"{' and '.join(given)} are both set", "keep exactly one of them")


def check_server(spec: ServerSpec, frontdoor: FrontdoorSettings) -> Iterator[Finding]:
    if spec.restart_max_delay < spec.restart_delay:
        yield Finding(("restart_max_delay",), "is shorter than restart_delay", "make it at least as long")
    elif spec.restart is not RestartPolicy.NO and not limit_can_be_hit(spec):
        message = "is never hit, not even by a server that ends at once: the delays add up to over start_limit_interval"
        remedy = "make start_limit_interval longer, or start_limit_burst or restart_max_delay smaller"
        yield Finding(("start_limit_burst",), message, remedy, fatal=False)
    if spec.sharing == "session" and spec.instances > 1:
        message = 'is for servers that clients share; with sharing = "session" each session has an instance of its own'
        yield Finding(("instances",), message, 'remove it, or write sharing = "shared"')
    if spec.call_timeout > frontdoor.max_call_time >= frontdoor.call_timeout:
        message = "is longer than frontdoor.max_call_time, so progress extends no call"
        yield Finding(("call_timeout",), message, "raise frontdoor.max_call_time, or lower this", fatal=False)
    for index, root in enumerate(spec.roots):
        yield from _check_root(index, root)
    yield from _check_tools(spec)


def limit_can_be_hit(spec: ServerSpec) -> bool:
    """Whether `start_limit_burst` automatic starts fit in the interval if each run ends at once and delays are short.

    The first of the starts costs no delay, and opens the window. After that the delays are
    `delay·(max/delay)^(min(n,steps)/steps)` for n from 0, at the least half of that (equal jitter).
    """
    growth = spec.restart_max_delay / spec.restart_delay
    elapsed = 0.0
    for number in range(spec.start_limit_burst - 1):
        elapsed += 0.5 * spec.restart_delay * growth ** (min(number, spec.restart_steps) / spec.restart_steps)
        if elapsed > spec.start_limit_interval:
            return False
    return True


def _check_root(index: int, root: str) -> Iterator[Finding]:
    uri = urlsplit(root)
    if uri.scheme != "file":
        yield Finding(("roots", index), f"{root!r} is not a file", 'write a path or a "file://" URI')
    elif not os.path.exists(unquote(uri.path)):
        yield Finding(
            ("roots", index), f"{unquote(uri.path)!r} does not exist", "make it, or correct the path", fatal=False
        )


def _check_tools(spec: ServerSpec) -> Iterator[Finding]:
    rules = spec.tools
    for index, tool in enumerate(rules.deny):
        if rules.allow is not None and tool in rules.allow:
            yield Finding(("tools", "deny", index), f"{tool!r} is allowed and denied", "keep one of the two")
    for tool in rules.rename:
        if tool in rules.deny or (rules.allow is not None and tool not in rules.allow):
            message = f"{tool!r} is renamed but not shown"
            yield Finding(("tools", "rename", tool), message, "allow it, or remove its new name", fatal=False)


def check_profile(spec: ServerSpec, profiles: Collection[str]) -> Iterator[Finding]:
    """The server's profile is one that mcpd has, or one of the registry's own."""
    name = spec.sandbox.profile
    if name not in BUILT_IN_PROFILES and name not in profiles:
        known = (*BUILT_IN_PROFILES, *profiles)
        remedy = did_you_mean(name, known) or f"write a table [profiles.{name}]"
        yield Finding(("sandbox", "profile"), f"there is no profile {name!r}", remedy)


def check_after(specs: Sequence[ServerSpec], names: Collection[str]) -> Iterator[tuple[str, Finding]]:
    """Findings about the order of starts, each with the server that it stands in. `names` are all servers there are."""
    for spec in specs:
        for index, other in enumerate(spec.after):
            if other == spec.name:
                yield spec.name, Finding(("after", index), "a server cannot start after itself", "remove the name")
            elif other not in names:
                remedy = did_you_mean(other, names) or "add the server, or remove the name"
                yield spec.name, Finding(("after", index), f"there is no server {other!r}", remedy)
    graph = {spec.name: tuple(other for other in spec.after if other != spec.name) for spec in specs}
    for cycle in _cycles(graph):
        chain = " after ".join((*cycle, cycle[0]))
        yield cycle[0], Finding(("after",), f"the order of starts is a circle: {chain}", "remove one of these")


def _cycles(graph: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """The cycles that a walk of the graph, depth first, runs into; none only if there are none."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        stack = [(start, iter(graph[start]))] if start not in done else []
        while stack:
            node, others = stack[-1]
            if len(path) < len(stack):
                path.append(node)
            following = next(others, None)
            if following is None:
                stack.pop()
                done.add(path.pop())
            elif following in path:
                yield tuple(path[path.index(following) :])
            elif following in graph and following not in done:
                stack.append((following, iter(graph[following])))


def check_view(view: ViewSpec, names: Collection[str]) -> Iterator[Finding]:
    for index, server in enumerate(view.servers):
        if server not in names:
            remedy = did_you_mean(server, names) or "add the server, or remove the name"
            yield Finding(("servers", index), f"there is no server {server!r}", remedy)
        elif server in view.servers[:index]:
            yield Finding(("servers", index), f"{server!r} stands twice", "remove one of the two")
    if not view.servers:
        yield Finding(("servers",), "the view shows no server", 'name some, or write servers = "*"', fatal=False)


def check_separator(separator: str, names: Collection[str]) -> Iterator[Finding]:
    """With "-" the tool `c` of a server `a-b` is shown by the same name as the tool `b-c` of a server `a`."""
    if separator != "-":
        return
    for name in names:
        for longer in names:
            if longer.startswith(f"{name}-"):
                message = f'with "-" the names of the tools of {name!r} and {longer!r} can be the same'
                yield Finding(("separator",), message, 'use "__", or rename one of the servers', fatal=False)

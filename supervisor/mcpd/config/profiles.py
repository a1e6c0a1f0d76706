"""What a server's profile comes to: the built-in one, the operator's own on top of it, the server's table on top."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from mcpd.config.positions import KeyPath
from mcpd.config.registry import ProfileSpec, SandboxSpec

UNSANDBOXED: Final = "unsandboxed"
TMP_SIZE: Final = 64 * 2**20
Network = Literal["none", "allow", "host"]

_TARGET = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>[0-9]{1,5})"
)
_MEANINGLESS_UNSANDBOXED: Final = ("read", "write", "allow", "home", "tmp_size", "network", "allow_private", "seccomp")
_MORE_THAN_STRICT: Final = {
    "read": "filesystem",
    "write": "filesystem",
    "allow": "network",
    "network": "network",
    "allow_private": "network",
}


class Target(msgspec.Struct, frozen=True):
    """What may be reached: a name in lower case (`*.` before it: any name below it), or an address, and a port."""

    host: str
    port: int

    def covers(self, host: str, port: int) -> bool:
        if port != self.port:
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Rules(msgspec.Struct, frozen=True):
    """What holds for a server; nothing is left open."""

    profile: str
    read: tuple[str, ...]
    write: tuple[str, ...]
    network: Network
    allow: tuple[Target, ...]
    allow_private: bool
    env_pass: tuple[str, ...]
    env: Mapping[str, str]
    home: Literal["tmpfs", "state"]
    tmp_size: int
    seccomp: Literal["default", "chromium"]

    @property
    def contained(self) -> bool:
        return self.profile != UNSANDBOXED


def effective(own: SandboxSpec, profiles: Mapping[str, ProfileSpec]) -> Rules:
    """The rules of a server with this table. Raises KeyError for a profile that does not exist, ValueError for a
    target that cannot be read; `findings` has told of both."""
    named = profiles.get(own.profile)
    if named is None and own.profile not in ("strict", "filesystem", "network", UNSANDBOXED):
        raise KeyError(own.profile)
    layers = (*((named,) if named is not None else ()), own)
    base = named.extends if named is not None else own.profile
    network: Network | None = None
    home: Literal["tmpfs", "state"] = "tmpfs"
    tmp_size, allow_private, seccomp = TMP_SIZE, False, "default"
    for layer in layers:
        network = layer.network if layer.network is not None else network
        home = layer.home if layer.home is not None else home
        tmp_size = layer.tmp_size if layer.tmp_size is not None else tmp_size
        allow_private = layer.allow_private if layer.allow_private is not None else allow_private
        seccomp = layer.seccomp if layer.seccomp is not None else seccomp
    allow = tuple(dict.fromkeys(parse_target(text) for layer in layers for text in layer.allow))
    if network is None:
        network = "allow" if allow or base == "network" else "none"
    return Rules(
        profile=own.profile,
        read=tuple(dict.fromkeys(str(path) for layer in layers for path in layer.read)),
        write=tuple(dict.fromkeys(str(path) for layer in layers for path in layer.write)),
        network=network,
        allow=allow,
        allow_private=allow_private,
        env_pass=tuple(dict.fromkeys(name for layer in layers for name in layer.env_pass)),
        env={name: value for layer in layers for name, value in layer.env.items()},
        home=home,
        tmp_size=tmp_size,
        seccomp="chromium" if seccomp == "chromium" else "default",
    )


def parse_target(text: str) -> Target:
    """`host:port`, `*.host:port`, `address:port` or `[address]:port`. Raises ValueError."""
    match = _TARGET.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(text)
    host = match["host"].lower().strip("[]").rstrip(".")
    if ":" in host:
        host = ipaddress.IPv6Address(host).compressed
    return Target(host, int(match["port"]))


def findings(own: SandboxSpec, profiles: Mapping[str, ProfileSpec]) -> Iterator[tuple[KeyPath, str, str]]:
    """Key, message and remedy for each thing that is wrong with a server's table, the profile's existence aside."""
    written = own.model_fields_set
    if own.profile == UNSANDBOXED:
        for key in _MEANINGLESS_UNSANDBOXED:
            if key in written:
                yield (key,), f"means nothing for a server that is {UNSANDBOXED}", "remove it, or name a profile"
        return
    if own.profile == "strict":
        for key, wider in _MORE_THAN_STRICT.items():
            if key in written and getattr(own, key) not in ((), "none", False):
                yield (key,), 'is more than profile = "strict" gives', f'write profile = "{wider}"'
    wrong = list(_bad_targets(own))
    yield from wrong
    if wrong or (own.profile in profiles and list(_bad_targets(profiles[own.profile]))):
        return
    try:
        rules = effective(own, profiles)
    except KeyError:
        return
    if rules.network == "allow" and not rules.allow:
        yield ("profile",), "allows the network, but names nothing in it", 'write allow = ["HOST:PORT"]'
    elif rules.network != "allow" and rules.allow:
        remedy = 'remove it, or write network = "allow"'
        yield ("allow",), f'means nothing with network = "{rules.network}"', remedy


def profile_findings(profile: ProfileSpec) -> Iterator[tuple[KeyPath, str, str]]:
    """The same for a table [profiles.NAME]."""
    return _bad_targets(profile)


def _bad_targets(table: ProfileSpec | SandboxSpec) -> Iterator[tuple[KeyPath, str, str]]:
    for index, text in enumerate(table.allow):
        try:
            parse_target(text)
        except ValueError:
            yield (
                ("allow", index),
                f"{text!r} is not a host and a port",
                'write "HOST:PORT", such as "api.github.com:443"',
            )

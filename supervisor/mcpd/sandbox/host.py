"""What every sandbox shows of this machine's system: its directories, a few settings, and users that exist inside."""

from __future__ import annotations

import os
from typing import Final

from mcpd.sandbox.bubblewrap import HOME, HOST_NAME, Bind, Host
from mcpd.sandbox.policy import USER

_USR_DIRECTORIES: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SETTINGS: Final = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl",
    "/etc/timezone",
)
_RESOLVER: Final = ("/etc/resolv.conf", "/etc/hosts")


def look_around() -> Host:
    """The host's system directories (file-hierarchy(7)): whether /bin and its like are links into /usr differs."""
    links, directories = [], ["/usr"]
    for name in _USR_DIRECTORIES:
        path = f"/{name}"
        if os.path.islink(path):
            links.append((path, os.readlink(path)))
        elif os.path.isdir(path):
            directories.append(path)
    return Host(tuple(links), tuple(directories), tuple(path for path in _SETTINGS if os.path.exists(path)))


def system_files(uid: int, gid: int, *, own_network: bool) -> dict[str, bytes]:
    """Files of /etc that say what is true inside."""
    nobody = "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
    files = {
        "/etc/passwd": f"{USER}:x:{uid}:{gid}::{HOME}:/bin/sh\n{nobody}",
        "/etc/group": f"{USER}:x:{gid}:\nnogroup:x:65534:\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    if own_network:
        files["/etc/hosts"] = f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n"
    return {path: text.encode() for path, text in files.items()}


def resolver() -> tuple[Bind, ...]:
    """How names are looked up outside, for a server that has the host's network."""
    return tuple(Bind(os.path.realpath(path), path) for path in _RESOLVER if os.path.exists(path))

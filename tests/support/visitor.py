"""Run as a program by root: becomes another user, then tries one of the daemon's sockets, and prints what came of it.

`python visitor.py UID GID GROUPS (mcp|control|call) PATH`; GROUPS are separated by commas. Everything is
imported before: the other user may not be able to read any of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcpd.cli import connect
from mcpd.cli.daemon_link import Ended
from mcpd.control.client import ControlClient, NoDaemon, Refused


def operate(path: Path) -> Any:
    try:
        return [status.name for status in ControlClient(path).servers()]
    except NoDaemon as problem:
        return f"no daemon: {problem}"
    except Refused as refused:
        return f"{refused.status}: {refused} ({refused.fault.remedy})"


def use(path: Path) -> Any:
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "visitor", "version": "1"}}
    lines: list[Any] = [
        {"mcpd": 1, "view": "all"},
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    ]
    try:
        link = socket.socket(fileno=connect.reach([os.fspath(path)]).detach())
    except Ended as ended:
        return f"ended: {ended}"
    link.settimeout(30)
    with link, link.makefile("rb") as stream:
        with contextlib.suppress(BrokenPipeError):  # it was refused already: why, is there to be read
            for line in lines:
                link.sendall(json.dumps(line).encode() + b"\n")
        greeting = json.loads(stream.readline())
        if "error" in greeting:
            return f"{greeting['error']['code']}: {greeting['error']['message']}"
        stream.readline()
        return sorted(tool["name"] for tool in json.loads(stream.readline())["result"]["tools"])


def call(path: Path) -> str:
    return ControlClient(path).call("time", "now", b"{}", 30.0).decode()


WAYS: dict[str, Callable[[Path], Any]] = {"mcp": use, "control": operate, "call": call}


def main() -> None:
    uid, gid, groups, which, path = sys.argv[1:]
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setgid(int(gid))
    os.setuid(int(uid))
    print(json.dumps(WAYS[which](Path(path))))


if __name__ == "__main__":
    main()

"""Runs a server and a client of it in a network of their own, where every port is free.

    unshare --user --map-root-user --net python own_network.py PORT COMMAND...

Prints what the client saw as one line of JSON. The document names fixed ports (8000, 8888), which a test run must not
take from the machine.
"""

import asyncio
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
LISTEN = "0A"


def command(port: int, argv: list[str]) -> list[str]:
    """Return the command that runs `argv` as a server on `port` in a network of its own."""
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--"]
    return [*unshare, sys.executable, os.fspath(Path(__file__).resolve()), str(port), *argv]


def available() -> bool:
    """Whether this machine lets us make a network."""
    try:
        return subprocess.run([*command(0, [])[:5], "true"], capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


def main() -> None:
    """Bring loopback up, run the server, look at it, end it."""
    from support.http_server import running

    port, argv = int(sys.argv[1]), sys.argv[2:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    with running(argv, port):
        seen = asyncio.run(look(port))
    print(json.dumps(seen))


async def look(port: int) -> dict[str, object]:
    """Return the server's name, its tools, and the address that it listens on."""
    from support.document import over_sse

    async with over_sse(f"http://127.0.0.1:{port}/sse") as client:
        tools = (await client.list_tools()).tools
        assert client.server_info is not None
        return {"name": client.server_info.name, "tools": [tool.name for tool in tools], "address": address_of(port)}


def address_of(port: int) -> str:
    """Return the address that is listened on at `port`."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address, number = fields[1].split(":")
        if fields[3] == LISTEN and int(number, 16) == port:
            return socket.inet_ntoa(struct.pack("<I", int(address, 16)))
    raise AssertionError(f"nobody listens on {port}")


if __name__ == "__main__":
    main()

"""What `mcpctl connect` costs, next to the least that its two hops can cost: both in one run, in turns.

    python benchmarks/connect.py [--rounds 5] [--seconds 1.0]

The measure is a bare relay of the same shape: a process that copies between its standard streams and a unix socket, and
one (uvloop) that passes each line on to a shared child, with nothing but the id rewritten.
"""

import argparse
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

CHUNK = 1 << 16


def copy(pairs: dict[int, int]) -> None:
    """Copy from each descriptor to its other until one of them ends."""
    with selectors.DefaultSelector() as selector:
        for source in pairs:
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, CHUNK)
                if not data:
                    return
                while data:
                    data = data[os.write(pairs[key.fd], data) :]


def near_end(path: str) -> None:
    """The hop that a client starts."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        copy({0: link.fileno(), link.fileno(): 1})


def far_end(path: str, command: list[str]) -> None:
    """The hop that has the child: it rewrites the id of each message, as whoever shares a child has to."""
    import asyncio

    import uvloop
    from floor import Child

    class Link(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.rest = b""

        def data_received(self, data: bytes) -> None:
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                if b'"id"' in line:
                    children[0].ask(line, self.answer)

        def answer(self, line: bytes) -> None:
            self.transport.write(line + b"\n")  # type: ignore[attr-defined]

    children: list[Child] = []

    async def serve() -> None:
        children.append(Child(command))
        server = await asyncio.get_running_loop().create_unix_server(Link, path)
        await server.serve_forever()

    uvloop.run(serve())


def main(rounds: int, seconds: float) -> None:
    from gateways import CHILD, mcpd
    from load import Stdio

    rows: dict[str, list[tuple[float, float, float]]] = {"direct": [], "relay": [], "mcpctl": []}
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder, mcpd() as daemon:
        path = f"{folder}/relay"
        far = subprocess.Popen([sys.executable, __file__, "--far-end", path, *CHILD])
        while not os.path.exists(path):
            time.sleep(0.01)
        mcpctl = [
            str(Path(sys.executable).with_name("mcpctl")),
            "connect",
            "s0",
            "--config",
            f"{daemon.home}/mcpd.toml",
        ]
        commands = {"direct": CHILD, "relay": [sys.executable, __file__, "--near-end", path], "mcpctl": mcpctl}
        try:
            for _ in range(rounds):
                began = time.perf_counter()
                subprocess.run([sys.executable, "-c", "pass"], check=True)
                bare.append(time.perf_counter() - began)
                for name, command in commands.items():
                    hop = Stdio(command)
                    latency = hop.load(seconds).p50
                    status = Path(f"/proc/{hop.process.pid}/status").read_text()
                    rows[name].append((latency, hop.first_answer, int(status.partition("VmRSS:")[2].split()[0]) / 1024))
                    hop.close()
        finally:
            far.kill()
            far.wait()
    print("| over stdio | p50 µs | start to first answer, ms | RSS MiB |\n|---|--:|--:|--:|")
    for name, found in rows.items():
        latency, first, rss = (median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {latency * 1e6:.0f} | {first * 1e3:.0f} | {rss:.1f} |")
    pairs = zip(rows["direct"], rows["relay"], rows["mcpctl"], strict=True)
    ratio = median((ours[0] - child[0]) / (relay[0] - child[0]) for child, relay, ours in pairs)
    over = median(ours[1] - start for start, ours in zip(bare, rows["mcpctl"], strict=True))
    print(f"\np50 added to direct stdio: **{ratio:.2f}** x what the relay adds (target ≤ 1.3)")
    print(f"start to first answer: **{over * 1e3:.0f} ms** over the start of a bare python (target ≤ 60 ms)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--near-end"]:
        near_end(sys.argv[2])
    elif sys.argv[1:2] == ["--far-end"]:
        far_end(sys.argv[2], sys.argv[3:])
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--seconds", type=float, default=1.0)
        main(**vars(parser.parse_args()))

"""What `mcpctl connect` costs, next to the least that its two hops can cost: all in one run, in turns.

    python benchmarks/connect.py [--rounds 5] [--seconds 1.0]

Three ways to the same kind of child, open at the same time; each round they take turns of a tenth of its seconds:

- direct: the child over its own pipes.
- relay: the bare two hops. The near one (`near_end`: Python, one select loop) copies what it reads of its stdin to a
  unix socket, and what it reads of the socket to its stdout, a piece at a time, and looks at none of it. The far one
  (`far_end`: Python on uvloop) cuts what comes into lines, gives each request an id of its own by replacing some bytes,
  writes it to the pipe of the one child that all share, and puts the client's id back into the answer. It parses no
  JSON, knows no sessions, and forgets nothing when a side goes away: there is nothing that it knew.
- mcpctl: `mcpctl connect`, and the daemon.
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
TURNS = 10


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
        mcpctl = [str(Path(sys.executable).with_name("mcpctl")), "connect", "s0"]
        mcpctl += ["--config", f"{daemon.home}/mcpd.toml"]
        commands = {"direct": CHILD, "relay": [sys.executable, __file__, "--near-end", path], "mcpctl": mcpctl}
        try:
            for _ in range(rounds):
                began = time.perf_counter()
                subprocess.run([sys.executable, "-c", "pass"], check=True)
                bare.append(time.perf_counter() - began)
                hops = {name: Stdio(command) for name, command in commands.items()}
                latencies: dict[str, list[float]] = {name: [] for name in hops}
                for _ in range(TURNS):
                    for name, hop in hops.items():
                        latencies[name] += hop.load(seconds / TURNS).latencies
                for name, hop in hops.items():
                    status = Path(f"/proc/{hop.process.pid}/status").read_text()
                    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
                    rows[name].append((median(latencies[name]), hop.first_answer, resident))
                    hop.close()
        finally:
            far.kill()
            far.wait()
    report(rows, bare)


def report(rows: dict[str, list[tuple[float, float, float]]], bare: list[float]) -> None:
    print("| over stdio | p50 µs | start to first answer, ms | RSS MiB |\n|---|--:|--:|--:|")
    for name, found in rows.items():
        latency, first, rss = (median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {latency * 1e6:.0f} | {first * 1e3:.0f} | {rss:.1f} |")
    print(f"| python -c pass | | {median(bare) * 1e3:.0f} | |")
    pairs = list(zip(rows["direct"], rows["relay"], rows["mcpctl"], strict=True))
    ratios = sorted((ours[0] - child[0]) / (relay[0] - child[0]) for child, relay, ours in pairs)
    over = sorted(ours[1] - start for start, ours in zip(bare, rows["mcpctl"], strict=True))
    times = sorted(ours[1] / relay[1] for _, relay, ours in pairs)
    rss = median(ours[2] for _, _, ours in pairs)
    print("\n| measure | median of rounds | least to most | target |\n|---|--:|--:|--:|")
    print(f"| p50 added to direct stdio, x what the relay adds | {median(ratios):.2f} | {spread(ratios)} | ≤ 1.3 |")
    milliseconds = [one * 1e3 for one in over]
    print(
        f"| start to first answer, over bare python | {median(milliseconds):.0f} ms | {spread(milliseconds, 0)} "
        "| ≤ 60 ms |"
    )
    print(f"| the same, x the relay's | {median(times):.2f} | {spread(times)} | |")
    print(f"| RSS | {rss:.1f} MiB | | ≤ 14 MiB |")


def spread(found: list[float], digits: int = 2) -> str:
    return f"{found[0]:.{digits}f} to {found[-1]:.{digits}f}"


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

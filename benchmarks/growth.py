"""What a call costs where there is more: 10 servers against 200, 10 sessions against 1,000; seconds of CPU, ratios.

    python benchmarks/growth.py [--rounds 5] [--seconds 2] [--servers 10,200] [--sessions 10,1000]

Both daemons run all the time and are asked in turns. What the idle servers of the larger one cost in the background is
part of its calls' cost, so read it together with the calls a second.
"""

import argparse
import json
import time
import urllib.error
import urllib.request
from statistics import median

from gateways import Gateway, mcpd
from load import Figures, load

CLIENTS = 32
PATIENCE = 300.0


def measure(gateway: Gateway, transport: str, path: str, tool: str, clients: int, seconds: float) -> Figures:
    return load(gateway.port, path, transport, clients, seconds, tool=tool, cpu=gateway.cpu)  # type: ignore[arg-type]


def until_ready(gateway: Gateway) -> None:
    """Wait for all servers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/readyz", timeout=10) as answer:
                if set(json.load(answer)["servers"].values()) == {"READY"}:
                    return
        except urllib.error.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the servers were not ready within {PATIENCE:g} s")


def row(what: str, pairs: list[tuple[Figures, Figures]]) -> str:
    less, more = (median(one.cpu for one in side) for side in zip(*pairs, strict=True))
    rates = [f"{median(one.rate for one in side):,.0f}" for side in zip(*pairs, strict=True)]
    ratio = median(more.cpu / less.cpu for less, more in pairs)
    return f"| {what} | {less:.4f} | {more:.4f} | **{ratio:.2f}** | {rates[0]} | {rates[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--servers", default="10,200")
    parser.add_argument("--sessions", default="10,1000")
    options = parser.parse_args()
    few, many = map(int, options.servers.split(","))
    less, more = map(int, options.sessions.split(","))
    print("| | CPU/1k, less | CPU/1k, more | ratio (≤ 1.15) | calls/s, less | calls/s, more |")
    print("|---|--:|--:|--:|--:|--:|")
    with mcpd(few) as small:
        until_ready(small)
        for transport in ("streamable", "stateless", "sse"):
            pairs = []
            for _ in range(options.rounds):
                path = small.path(transport)
                counts = (less, more)
                pairs.append(tuple(measure(small, transport, path, "echo", n, options.seconds) for n in counts))
            print(row(f"{less} against {more} clients, {transport}", pairs), flush=True)  # type: ignore[arg-type]
        with mcpd(many) as large:
            until_ready(large)
            for path, tool in (("/servers/s0/mcp", "echo"), ("/mcp", "s0__echo")):
                for transport in ("streamable", "stateless"):
                    pairs = []
                    for _ in range(options.rounds):
                        both = (small, large)
                        pairs.append(
                            tuple(measure(one, transport, path, tool, CLIENTS, options.seconds) for one in both)
                        )
                    print(row(f"{few} against {many} servers, {transport} at {path}", pairs), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

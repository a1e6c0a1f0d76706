"""How fast mcpd passes calls on, next to the least that it could cost: both in one run, in turns.

    python benchmarks/gateway.py [--rounds 5] [--seconds 1.5] [--loads streamable:32:100,sse:1:100]

A load is transport:clients:payload; transports are streamable, stateless (2026-07-28) and sse. What counts are the
ratios, which are taken round by round, since on most machines the speed itself changes from minute to minute.
"""

import argparse
from statistics import median

from gateways import CHILD, Gateway, floor, mcpd
from load import Figures, Stdio, load

LOADS = (
    "streamable:1:100,streamable:32:100,streamable:256:100,stateless:32:100,stateless:256:100,"
    "sse:1:100,sse:32:100,sse:256:100,streamable:32:100000,stateless:32:100000,sse:32:100000"
)
TARGETS = {"rate": "≥ 0.75, sse and 100 kB ≥ 0.80", "cpu": "≤ 1.4", "added": "≤ 1.5"}


def measure(gateway: Gateway, text: str, seconds: float) -> Figures:
    transport, clients, payload = text.split(":")
    return load(
        gateway.port,
        gateway.path(transport),
        transport,  # type: ignore[arg-type]
        int(clients),
        seconds,
        int(payload),
        cpu=gateway.cpu,
    )


def direct(seconds: float) -> float:
    """The median time of a call to the child itself."""
    child = Stdio(CHILD)
    try:
        return child.load(seconds).p50
    finally:
        child.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--loads", default=LOADS)
    options = parser.parse_args()
    print(
        "| load | floor calls/s | mcpd calls/s | x floor | floor CPU/1k | mcpd CPU/1k | x floor | added p50, x floor |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    with floor() as least, mcpd() as ours:
        for gateway in (least, ours):
            load(gateway.port, gateway.path("streamable"), "streamable", 8, 0.5)  # everything has been used once
        for text in options.loads.split(","):
            pairs: list[tuple[Figures, Figures]] = []
            added: list[float] = []
            for number in range(options.rounds):
                order = (least, ours) if number % 2 else (ours, least)
                found = {gateway.name: measure(gateway, text, options.seconds) for gateway in order}
                pairs.append((found["floor"], found["mcpd"]))
                if ":1:" in text:
                    bare = direct(options.seconds / 2)
                    added.append((found["mcpd"].p50 - bare) / (found["floor"].p50 - bare))
            print(row(text, pairs, added), flush=True)
    print(f"\ntargets: x floor {TARGETS['rate']}; CPU {TARGETS['cpu']}; added p50 {TARGETS['added']}")


def row(text: str, pairs: list[tuple[Figures, Figures]], added: list[float]) -> str:
    cells = [
        text,
        f"{median(least.rate for least, _ in pairs):,.0f}",
        f"{median(ours.rate for _, ours in pairs):,.0f}",
        f"**{median(ours.rate / least.rate for least, ours in pairs):.2f}**",
        f"{median(least.cpu for least, _ in pairs):.3f}",
        f"{median(ours.cpu for _, ours in pairs):.3f}",
        f"**{median(ours.cpu / least.cpu for least, ours in pairs):.2f}**",
        f"**{median(added):.2f}**" if added else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

"""Calls a second and latency of an echo tool over stdio: mcpworker, the SDK's server class, the fastmcp package.

python benchmarks/worker_calls.py [--rounds N] [--calls N] [--in-flight N]
       [--without-fastmcp | --fastmcp REQUIREMENT...]
"""

from __future__ import annotations

import sys
from statistics import median

from worker_common import ECHO, Session, arguments, frame, now, peers, report

TARGET = 1.0
"""Calls a second must not be below those of either."""


def main() -> int:
    """Measure and print."""
    parser = arguments(__doc__ or "", rounds=7)
    parser.add_argument("--calls", type=int, default=2000, help="calls a round")
    parser.add_argument("--in-flight", type=int, default=32, help="calls in flight where throughput is measured")
    options = parser.parse_args()
    throughput: dict[str, list[float]] = {}
    latency: dict[str, list[float]] = {}
    with peers(ECHO, options) as servers:
        sessions = {peer.name: Session(peer) for peer in servers}
        try:
            for session in sessions.values():
                session.initialized()
                one_by_one(session, 200)
            for number in range(options.rounds):
                # The order changes with each round: nobody always runs after the same other.
                order = list(sessions)[number % len(sessions) :] + list(sessions)[: number % len(sessions)]
                for name in order:
                    throughput.setdefault(name, []).append(pipelined(sessions[name], options.calls, options.in_flight))
                    latency.setdefault(name, []).append(one_by_one(sessions[name], options.calls // 4))
        finally:
            for session in sessions.values():
                session.close()
    names = [name for name in ("mcpworker", "sdk", "fastmcp") if name in throughput]
    ratios = report(
        f"echo over stdio, {options.in_flight} calls in flight",
        "calls/s",
        {name: throughput[name] for name in names},
        higher_is_better=True,
    )
    slower = report(
        "echo over stdio, one call after the other (median latency)",
        "us",
        {name: latency[name] for name in names},
        higher_is_better=False,
    )
    missed = [name for name in ratios if ratios[name] < TARGET] + [name for name in slower if slower[name] > 1 / TARGET]
    if missed:
        print(f"\nbelow the target of {TARGET} x {', '.join(sorted(set(missed)))}")
    return 1 if missed and options.check else 0


def pipelined(session: Session, calls: int, in_flight: int) -> float:
    """Return calls a second with `in_flight` calls on their way at any time."""
    frames = [frame(number, "tools/call", {"name": "echo", "arguments": {"text": "hello"}}) for number in range(calls)]
    begin = now()
    session.write(b"".join(frames[:in_flight]))
    for sent in range(in_flight, calls):
        check(session.read_line())
        session.write(frames[sent])
    for _ in range(min(in_flight, calls)):
        check(session.read_line())
    return calls / (now() - begin)


def one_by_one(session: Session, calls: int) -> float:
    """Return the median latency in microseconds of calls that wait for each other."""
    taken = []
    for number in range(calls):
        line = frame(number, "tools/call", {"name": "echo", "arguments": {"text": "hello"}})
        begin = now()
        session.write(line)
        answer = session.read_line()
        taken.append((now() - begin) * 1e6)
        check(answer)
    return median(taken)


def check(answer: bytes) -> None:
    """Fail unless the answer is the echo."""
    if b'"hello"' not in answer:
        raise RuntimeError(f"not an echo: {answer!r}")


if __name__ == "__main__":
    sys.exit(main())

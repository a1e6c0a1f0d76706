"""What containment costs at the start of a server: `strict` against bare, as a ratio, for real servers.

    .venv/bin/python benchmarks/spawn.py [--rounds N]

From the start of the process to the answer to `initialize`. The two kinds take turns, so that a busy machine slows
both; compare ratios, not times. The servers are those of the end-to-end tests (scripts/peers installs them).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mcpd.config.registry import Registry, SandboxSpec, ServerSpec
from mcpd.config.settings import DaemonSettings
from mcpd.process.child import Child
from mcpd.process.exits import ExitStatus
from mcpd.process.launch import spawn
from mcpd.process.stderr import StderrLog
from mcpd.process.stop import StopLadder
from mcpd.sandbox.policy import LaunchPlan, plan
from mcpd.sandbox.probe import find_launcher, probe
from mcpd.sandbox.warden import Warden

PEERS = Path(__file__).resolve().parents[1] / ".venv" / "peers"
DEADLINE = 60.0
INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "benchmark", "version": "0"},
        },
    }
).encode()
SERVERS = {
    "true": ("/bin/true",),
    "mcp-server-time (Python)": (str(PEERS / "python" / "bin" / "mcp-server-time"),),
    "server-memory (node)": (
        "node",
        str(PEERS / "node/node_modules/@modelcontextprotocol/server-memory/dist/index.js"),
    ),
}


class FirstFrame:
    """Waits for the first frame, or the end."""

    def __init__(self) -> None:
        self.done = asyncio.get_running_loop().create_future()

    def frame(self, frame: bytes) -> None:
        self._resolve()

    def noise(self, kind: str, sample: bytes) -> None: ...
    def stdout_closed(self) -> None: ...
    def stdin_broken(self) -> None: ...

    def exited(self, status: ExitStatus) -> None:
        self._resolve()

    def _resolve(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def once(planned: LaunchPlan, log: StderrLog, *, speaks: bool) -> float:
    events = FirstFrame()
    began = time.perf_counter()
    child: Child = spawn(planned, events, log)
    if speaks:
        child.offer(INITIALIZE)
    await asyncio.wait_for(events.done, DEADLINE)
    taken = time.perf_counter() - began
    if speaks and child.status is not None:
        raise SystemExit(f"{planned.argv[0]}: {child.status}: {child.stderr_tail.decode()}")
    await child.stop(StopLadder(1, 1, 5))
    return taken


async def compare(rounds: int, directory: Path) -> None:
    facts = probe()
    if facts.weakness:
        raise SystemExit(f"strict is not possible here: {facts.weakness}")
    bare_facts = type(facts)(None, "", "bare")
    daemon = DaemonSettings(state_dir=directory / "s", runtime_dir=directory / "r", secrets_dir=directory / "k")
    registry = Registry(path=directory / "mcpd.toml", daemon=daemon)
    warden = Warden(facts, registry, os.environ, cookie="benchmark", launcher=find_launcher())
    log = StderrLog(directory / "log")
    print(f"{'server':28} {'bare ms':>9} {'strict ms':>10} {'ratio':>6} {'planning ms':>12}   (median of {rounds})")
    for name, command in SERVERS.items():
        if not Path(command[-1]).exists():
            print(f"{name:28} not installed: run scripts/peers")
            continue
        own = {kind: ServerSpec(name="x", command=command, sandbox=SandboxSpec(profile=kind)) for kind in _KINDS}
        times: dict[str, list[float]] = {"bare": [], "strict": [], "plan": []}
        for _ in range(rounds):
            bare = plan(own["unsandboxed"], {}, bare_facts, base=os.environ, cookie="benchmark")
            began = time.perf_counter()
            strict = warden.plan(own["strict"], {}, registry)
            times["plan"].append(time.perf_counter() - began)
            speaks = name != "true"
            times["bare"].append(await once(bare, log, speaks=speaks))
            times["strict"].append(await once(strict, log, speaks=speaks))
        middle = {key: statistics.median(values) * 1000 for key, values in times.items()}
        ratio = (middle["strict"] + middle["plan"]) / middle["bare"]
        print(f"{name:28} {middle['bare']:9.1f} {middle['strict']:10.1f} {ratio:6.2f} {middle['plan']:12.1f}")
    log.close()


_KINDS = ("unsandboxed", "strict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="mcpd-spawn-") as directory:
        asyncio.run(compare(options.rounds, Path(directory)))


if __name__ == "__main__":
    main()

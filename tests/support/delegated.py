"""Run in a control group that may be claimed: real children against real limits. Prints what became of each as JSON.

As the daemon does it: the own group is claimed, and servers get groups below it. The first argument is a directory
to write to, the second the user to become before.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcpd.clock import SystemClock
from mcpd.process import tree
from mcpd.process.stop import StopLadder
from mcpd.sandbox.cgroup import CgroupHome, claim
from mcpd.sandbox.probe import probe
from support.boxes import Box, spec
from support.processes import CHILDREN

ATTACKER = (sys.executable, "-I", "-S", str(CHILDREN / "attacker.py"), os.readlink("/proc/self/ns/mnt"))
LIMITS = {"memory": 96 * 2**20, "pids": 20, "cpu": 0.2, "enforce": "cgroup"}
PATIENCE = 120.0


class Scene:
    def __init__(self, root: Path, home: CgroupHome, reason: str) -> None:
        self.root = root
        self.home = home
        self.facts = replace(probe(), cgroups=home, cgroups_reason=reason)

    @asynccontextmanager
    async def box(self, name: str, *command: str, **limits: Any) -> AsyncIterator[Box]:
        box = Box(self.root, spec(*command, name=name, limits={**LIMITS, **limits}), found=self.facts)
        try:
            yield box
        finally:
            await asyncio.wait_for(box.child.stop(StopLadder(0.5, 0.5, 10.0)), PATIENCE)
            box.log.close()

    def groups(self) -> list[Path]:
        return [path for path in self.home.path.iterdir() if path.is_dir() and path.name != "daemon"]

    async def memory(self, how: str) -> dict[str, Any]:
        async with self.box(how, *ATTACKER) as box:
            assert box.child.offer(json.dumps([how, 400]).encode())
            status = await box.heard.until_exit(PATIENCE)
            return {"result": status.result, "text": str(status), "in force": dict(box.plan.limits.in_force)}

    async def pids(self) -> dict[str, Any]:
        async with self.box("forks", *ATTACKER) as box:
            forks = (await box.ask("forks", 60, timeout=PATIENCE))["got"]
            (group,) = self.groups()
            return {"forks": forks, "max": (group / "pids.max").read_text().strip(), "events": _table(group, "pids")}

    async def cpu(self) -> dict[str, Any]:
        async with self.box("spin", sys.executable, "-c", "print(1, flush=True)\nwhile True: pass") as box:
            await box.heard.until_frames(1, PATIENCE)
            (group,) = self.groups()
            clock, before = SystemClock(), _table(group, "cpu", "stat")
            since = clock.monotonic()
            while (now := _table(group, "cpu", "stat"))["nr_periods"] - before["nr_periods"] < 20:
                await asyncio.sleep(0.05)
            used = (now["usage_usec"] - before["usage_usec"]) / 1e6
            return {"share": used / (clock.monotonic() - since), "throttled": now["nr_throttled"]}

    async def kill(self) -> dict[str, Any]:
        """A tree in which everybody ignores signals and has a session of its own, ended by writing to one file."""
        text = 'trap "" TERM INT HUP; setsid sh -c "sleep 1000 & sleep 1000" & setsid sleep 1000 & echo up; wait'
        async with self.box("tree", "/bin/sh", "-c", text) as box:
            await box.heard.until_frames(1, PATIENCE)
            (group,) = self.groups()
            before = len((group / "cgroup.procs").read_text().split())
            done = box.child._cgroup.kill() if box.child._cgroup is not None else False
            status = await box.heard.until_exit(PATIENCE)
            return {"before": before, "done": done, "signal": status.signal}


def _table(group: Path, controller: str, file: str = "events") -> dict[str, int]:
    lines = (group / f"{controller}.{file}").read_text().splitlines()
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}


async def play(root: Path) -> dict[str, Any]:
    home, reason = claim()
    if home is None:
        return {"claimed": False, "reason": reason}
    scene = Scene(root, home, reason)
    return {
        "claimed": True,
        "weakness": scene.facts.weakness,
        "controllers": sorted(home.controllers),
        "hog": await scene.memory("hog"),
        "memfd": await scene.memory("memfd"),
        "pids": await scene.pids(),
        "cpu": await scene.cpu(),
        "kill": await scene.kill(),
        "groups left": [path.name for path in scene.groups()],
        "processes left": len(tree.children(os.getpid())),
    }


def main() -> None:
    user = int(sys.argv[2])
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    signal.alarm(500)
    print(json.dumps(asyncio.run(play(Path(sys.argv[1])))), flush=True)


if __name__ == "__main__":
    main()

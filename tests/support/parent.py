"""A small daemon to be killed: `python -m support.parent MODE COOKIE DIRECTORY [FIFO HOW]`, with tests/ on the path.

contained, bare   starts a child that leaves a grandchild, says so, and waits
strays            does what a daemon does at its start: ends what an earlier one of that cookie left; prints how many
adopt             as a subreaper, ends a bare tree whose members have become its own; prints its children in the end
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mcpd.process import tree
from mcpd.process.launch import spawn
from mcpd.process.stderr import StderrLog
from mcpd.process.stop import StopLadder
from support.processes import Recorder, launch_plan, script


async def main(mode: str, cookie: str, directory: str, *about: str) -> None:
    if mode == "strays":
        print(*await tree.end_strays(cookie, grace=0.3), flush=True)
        return
    if mode == "adopt":
        assert tree.become_subreaper()
    log = StderrLog(Path(directory) / "parent.log")
    command = script("leaves_grandchild.py", *about, "wait")
    heard = Recorder()
    child = spawn(launch_plan(*command, contained=mode == "contained", cookie=cookie), heard, log)
    await heard.until_frames(1)
    if mode == "adopt":
        outcome = await child.stop(StopLadder(2, 2, 2))
        adopted = tree.Adopted()
        async with asyncio.timeout(5):
            while tree.children(os.getpid()):
                adopted.reap()
                await asyncio.sleep(0.05)
        print(outcome.rung, outcome.left, tree.children(os.getpid()), flush=True)
        return
    print("ready", flush=True)
    await heard.until(lambda: False, 60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

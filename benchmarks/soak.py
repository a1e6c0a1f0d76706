"""Many servers and clients for minutes, while a child is killed every second; says whether anything was lost or left.

    scripts/soak [--minutes 10] [--servers 50] [--clients 100]      (or `make soak`)

Servers are contained by the default profile. Every answer is looked at: it has to be the one to its question, or an
error that names the server that went away. Before anything is counted each server was killed once, so that its log is
open, and each client had an answer. Exits with 1 if an answer was wrong or missing, if zombies were left, if a server
or the daemon did not come back or end as it should, or if memory or descriptors of the daemon grew.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from support.daemon import CHILDREN, Daemon, python_server, wait_for

KILL_EVERY = 1.0
LOOK_EVERY = 5.0
PAUSE = 0.25  # seconds that a client waits between two calls, on average
CALL_LIMIT = 60.0
WARM_UP = 0.2  # of the time, in which the daemon's bounded memories fill and no growth is judged
RSS_SLOPE = 0.5  # MiB a minute that count as no growth
FD_SLOPE = 0.5  # descriptors a minute
SOON = 60.0
ZOMBIE_AGE = 5.0  # seconds after which a dead child is left over, and not just about to be collected
SERVER = CHILDREN / "mcp_peer.py"
KEYS = {
    "restart_delay": '"50ms"',
    "restart_max_delay": '"500ms"',
    "start_limit_burst": "100000",
    "stable_after": '"1s"',
}


@dataclass
class Tally:
    """What became of all calls."""

    right: int = 0
    cut: int = 0
    heard: set[str] = field(default_factory=set)  # clients that had an answer
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, client: str, server: str, sent: str, status: int, raw: bytes) -> None:
        with self.lock:
            self.heard.add(client)
            try:
                answer = json.loads(raw)
                if "error" in answer:
                    known = status == 200 and server in answer["error"]["message"]
                    self.cut += known
                    if not known:
                        self.wrong.append(f"{server}: {status} {raw[:200]!r}")
                elif json.loads(answer["result"]["content"][0]["text"]) == {"text": sent}:
                    self.right += 1
                else:
                    self.wrong.append(f"{server}: {sent!r} was answered with {raw[:200]!r}")
            except (ValueError, KeyError, TypeError, IndexError):
                self.wrong.append(f"{server}: {status} {raw[:200]!r}")

    def lost(self, server: str, why: BaseException) -> None:
        with self.lock:
            self.missing.append(f"{server}: {type(why).__name__}: {why}")


class Client(threading.Thread):
    """One session that calls servers at random until it is told to stop."""

    def __init__(self, number: int, daemon: Daemon, servers: list[str], tally: Tally, stop: threading.Event) -> None:
        super().__init__(name=f"client{number}", daemon=True)
        self._dice = random.Random(number)
        self._servers = servers
        self._tally = tally
        self._stop_asked = stop
        self._headers = {
            **daemon.headers,
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        self._connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=CALL_LIMIT)
        self._count = 0

    def run(self) -> None:
        try:
            self._initialize()
        except (OSError, http.client.HTTPException) as why:
            self._tally.lost("initialize", why)
            return
        while not self._stop_asked.wait(self._dice.random() * 2 * PAUSE):
            self._count += 1
            server, text = self._dice.choice(self._servers), f"{self.name}-{self._count}"
            call = {"name": f"{server}__echo", "arguments": {"text": text}}
            try:
                status, raw = self._post({"jsonrpc": "2.0", "id": self._count, "method": "tools/call", "params": call})
            except (OSError, http.client.HTTPException) as why:
                self._tally.lost(server, why)
                self._connection.close()
            else:
                self._tally.count(self.name, server, text, status, raw)
        self._connection.close()

    def _initialize(self) -> None:
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": self.name, "version": "1"},
        }
        self._post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _post(self, message: dict[str, object]) -> tuple[int, bytes]:
        self._connection.request("POST", "/mcp", json.dumps(message).encode(), self._headers)
        response = self._connection.getresponse()
        session = response.headers.get("Mcp-Session-Id")
        if session is not None:
            self._headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
        return response.status, response.read()


class Looker:
    """Looks at the daemon now and then."""

    def __init__(self, daemon: Daemon) -> None:
        self._process = psutil.Process(daemon.pid)
        self._began = time.monotonic()
        self.rss: list[tuple[float, float]] = []
        self.descriptors: list[tuple[float, float]] = []
        self.zombies = 0
        self._dead_since: dict[tuple[int, float], float] = {}

    def look(self) -> None:
        at = time.monotonic() - self._began
        self.rss.append((at / 60, self._process.memory_info().rss / 2**20))
        self.descriptors.append((at / 60, float(self._process.num_fds())))
        dead = {}
        for child in self._process.children():
            try:
                if child.status() == psutil.STATUS_ZOMBIE:
                    key = (child.pid, child.create_time())
                    dead[key] = self._dead_since.get(key, at)
            except psutil.NoSuchProcess:
                continue
        self._dead_since = dead
        self.zombies += sum(at - since > ZOMBIE_AGE for since in dead.values())


def slope(points: list[tuple[float, float]]) -> float:
    """Growth a minute by least squares, without the beginning."""
    points = points[int(len(points) * WARM_UP) :]
    if len(points) < 3:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread


def kill_each(daemon: Daemon) -> None:
    """Kill every server once, and wait until all are back: from now on each has a log."""
    before = {one.name: one.pid for one in daemon.control.servers()}
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    wait_back(daemon, lambda name, pid: pid != before[name])


def wait_back(daemon: Daemon, fits: Callable[[str, int | None], bool] = lambda name, pid: True) -> None:
    def back() -> bool:
        return all(one.state == "READY" and fits(one.name, one.pid) for one in daemon.control.servers())

    wait_for(back, lambda: f"every server is READY: {daemon.states()}", SOON)


def kill_one(daemon: Daemon, dice: random.Random) -> bool:
    ready = [one.pid for one in daemon.control.servers() if one.state == "READY" and one.pid is not None]
    if not ready:
        return False
    try:
        os.kill(dice.choice(ready), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def soak(daemon: Daemon, servers: list[str], clients: int, seconds: float) -> tuple[Tally, Looker, int]:
    kill_each(daemon)
    tally, stop = Tally(), threading.Event()
    crowd = [Client(number, daemon, servers, tally, stop) for number in range(clients)]
    for client in crowd:
        client.start()
    wait_for(lambda: len(tally.heard) == clients or tally.missing, "every client had an answer", SOON)
    looker = Looker(daemon)
    kills = storm(daemon, tally, looker, seconds)
    looker.look()
    stop.set()
    for client in crowd:
        client.join(CALL_LIMIT + 5.0)
        if client.is_alive():
            tally.missing.append(f"{client.name} still waits for an answer")
    wait_back(daemon)
    return tally, looker, kills


def storm(daemon: Daemon, tally: Tally, looker: Looker, seconds: float) -> int:
    """Kill one server after the other; how many it were."""
    dice, kills = random.Random(0), 0
    began = time.monotonic()
    next_kill, next_look = began + KILL_EVERY, began
    while (now := time.monotonic()) - began < seconds:
        if now >= next_kill:
            next_kill += KILL_EVERY
            kills += kill_one(daemon, dice)
        if now >= next_look:
            next_look += LOOK_EVERY
            looker.look()
            told = f"{looker.rss[-1][1]:.1f} MiB  {looker.descriptors[-1][1]:.0f} descriptors"
            print(f"{now - began:5.0f} s  {tally.right} answers  {kills} kills  {told}", flush=True)
        time.sleep(max(0.0, min(next_kill, next_look) - time.monotonic()))
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()
    servers = [f"s{number}" for number in range(options.servers)]
    daemon = Daemon("".join(python_server(name, SERVER, **KEYS) for name in servers), defaults="")
    try:
        daemon.start()
        tally, looker, kills = soak(daemon, servers, options.clients, options.minutes * 60)
        restarts = sum(one.restarts for one in daemon.control.servers())
        code = daemon.stop()
    finally:
        daemon.close()
    rss, descriptors = slope(looker.rss), slope(looker.descriptors)
    print(f"\n{options.minutes:g} minutes, {options.servers} servers, {options.clients} clients")
    print(f"killed                     {kills} (restarts {restarts}, {options.servers} of them before that)")
    print(f"answers                    {tally.right}, and {tally.cut} errors that name the server that was killed")
    print(f"wrong answers              {len(tally.wrong)}")
    print(f"missing answers            {len(tally.missing)}")
    print(f"zombies left               {looker.zombies}")
    print(f"RSS of the daemon          {looker.rss[0][1]:.1f} to {looker.rss[-1][1]:.1f} MiB, {rss:+.2f} MiB a minute")
    first, last = looker.descriptors[0][1], looker.descriptors[-1][1]
    print(f"descriptors of the daemon  {first:.0f} to {last:.0f}, {descriptors:+.2f} a minute")
    print(f"(growth by least squares, without the first {WARM_UP:.0%} of the time)")
    for text in (tally.wrong + tally.missing)[:10]:
        print(f"  {text}", file=sys.stderr)
    good = not tally.wrong and not tally.missing and not looker.zombies and code == 0
    return 0 if good and rss < RSS_SLOPE and descriptors < FD_SLOPE else 1


if __name__ == "__main__":
    sys.exit(main())

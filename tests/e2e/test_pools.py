"""Pools, replacements under load, lazy servers and sessions' own instances, by real clients over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.clients import SERVERS
from e2e.raw import Http, call, http, request
from mcpd.control.view import InstanceStatus
from support.daemon import CHILDREN, Daemon, python_server, running, wait_for

CLIENTS = 6
PAUSE = 0.005  # seconds between two calls of a client, so that the machine has time for what is tested
PEER = CHILDREN / "mcp_peer.py"
MAY_READ = f'sandbox = {{ profile = "filesystem", read = ["{CHILDREN}"] }}\n'  # what a shell's -c names is not found


class Load:
    """Clients that call again and again until they are told to stop; `failures` are all answers that were no result."""

    def __init__(self, daemon: Daemon, server: str) -> None:
        self.calls = 0
        self.failures: list[Any] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._work = [self._pool.submit(self._run, daemon, server, number) for number in range(CLIENTS)]

    def _run(self, daemon: Daemon, server: str, client: int) -> None:
        with http(daemon, f"/servers/{server}/mcp", session=True) as one:
            number = 0
            while not self._stop.wait(PAUSE):
                number += 1
                answer = one.post(call(number, "echo", client=client, number=number)).json()
                self.calls += 1
                text = answer.get("result", {"content": [{"text": "{}"}]})["content"][0]["text"]
                if json.loads(text) != {"client": client, "number": number}:
                    self.failures.append(answer)

    def until(self, more: int) -> None:
        """Return when so many more calls were answered."""
        wanted = self.calls + more
        wait_for(lambda: self.calls >= wanted or any(one.done() for one in self._work), "calls go on")

    def end(self) -> None:
        self._stop.set()
        self._pool.shutdown()
        for one in self._work:
            one.result()


@contextmanager
def load(daemon: Daemon, server: str) -> Iterator[Load]:
    one = Load(daemon, server)
    try:
        one.until(CLIENTS)
        yield one
    finally:
        one.end()


@pytest.mark.parametrize("instances", ["1", "3"])
def test_no_call_notices_a_rolling_restart_nor_a_changed_entry(instances: str) -> None:
    keys = {"instances": instances}
    with running(python_server("time", PEER, **keys)) as daemon, load(daemon, "time") as calls:
        before = daemon.server("time")

        done = daemon.ctl("restart", "--rolling", "time")
        calls.until(CLIENTS)

        assert "READY" in done.stdout
        assert daemon.server("time")["generation"] == before["generation"] + 1
        daemon.write(python_server("time", PEER, **keys, env='{ MODE = "new" }'))
        assert daemon.control.reload().restarted == ("time",)
        daemon.wait_until("time", lambda one: one["generation"] == before["generation"] + 2, "it is another")
        wait_for(lambda: len(daemon.control.server("time").instances) == int(instances), "the old ones are gone")
        calls.until(CLIENTS)

        calls.end()
        assert calls.failures == []
        assert daemon.server("time")["restarts"] == 0


def test_a_broken_new_entry_costs_no_call() -> None:
    with running(python_server("time", PEER)) as daemon, load(daemon, "time") as calls:
        pid = daemon.server("time")["pid"]
        daemon.write(python_server("time", CHILDREN / "ends_with.py", "7"))

        problems = daemon.control.reload().problems

        assert any("exit code 7" in problem and "goes on" in problem for problem in problems)
        calls.until(CLIENTS)
        assert daemon.server("time")["pid"] == pid
        assert "exit code 7" in daemon.ctl("status", "time").stdout
        daemon.write(python_server("time", PEER))
        assert daemon.control.reload().problems == ()
        calls.until(CLIENTS)
        calls.end()
        assert calls.failures == []


def test_calls_of_a_pool_are_spread_over_its_instances() -> None:
    with (
        running(python_server("time", SERVERS / "quick.py", instances="3", drain_timeout='"0s"')) as daemon,
        ThreadPoolExecutor(6) as pool,
        http(daemon, "/servers/time/mcp", session=True) as client,
    ):
        waiting = [pool.submit(client.post, call(number, "hold")) for number in range(1, 7)]
        wait_for(lambda: daemon.server("time")["calls"] == 6, "six calls are held")

        assert [one.calls for one in daemon.control.server("time").instances] == [2, 2, 2]

        daemon.control.stop("time")
        assert all("error" in one.result().json() for one in waiting)


def test_a_lazy_server_is_listed_started_once_by_many_and_rests() -> None:
    with running(python_server("maps", PEER, activation='"lazy"', idle_timeout='"300ms"'), ready=()) as daemon:
        idle = daemon.wait_until("maps", lambda one: one["state"] == "IDLE", "it was learnt")
        assert idle["saved"] > 0
        row = next(line for line in daemon.ctl("list").stdout.splitlines() if line.startswith("maps"))
        assert "IDLE" in row
        assert "saves" in row

        def use(number: int) -> Any:
            with http(daemon, session=True) as client:
                return client.post(call(number, "maps__echo", n=number)).json()

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(use, range(1, CLIENTS + 1)))

        assert [json.loads(one["result"]["content"][0]["text"])["n"] for one in answers] == [1, 2, 3, 4, 5, 6]
        assert daemon.server("maps")["generation"] == idle["generation"] + 1
        daemon.wait_until("maps", lambda one: one["state"] == "IDLE", "it rests again")
        with http(daemon, session=True) as client:
            names = [tool["name"] for tool in client.post(request(1, "tools/list")).json()["result"]["tools"]]
        assert "maps__echo" in names
        assert daemon.server("maps")["state"] == "IDLE"


def test_each_session_has_its_own_and_nothing_is_left_of_it() -> None:
    with running(python_server("own", CHILDREN / "mcp_tells.py", sharing='"session"')) as daemon:
        clients = [Http(daemon, "/servers/own/mcp") for _ in range(3)]
        wishes: list[dict[str, Any]] = [{"sampling": {}}, {"elicitation": {}}, {}]
        for client, capabilities in zip(clients, wishes, strict=True):
            client.open_session(capabilities=capabilities)

        told = [json.loads(text_of(client.post(call(1, "echo")).json()))["capabilities"] for client in clients]

        assert told == wishes
        assert owners(daemon) == 3
        for client in clients:
            assert client.send("DELETE").status_code in (200, 204)
            client.client.close()
        wait_for(lambda: owners(daemon) == 0, "their processes are gone")
        assert daemon.server("own")["state"] == "READY"
        tree = daemon.tree()
        daemon.ctl("stop", "own")
        tree.wait_gone()
        tree.close()


def owners(daemon: Daemon) -> int:
    """The READY instances of sessions."""
    return sum(one.state == "READY" and "#" in one.key for one in daemon.control.server("own").instances)


def text_of(answer: Any) -> str:
    text: str = answer["result"]["content"][0]["text"]
    return text


def test_a_new_session_does_not_wait_for_an_interpreter() -> None:
    """The child takes a second to start; the spare has done that before anybody came."""
    slow = ["/bin/sh", "-c", f"sleep 1; exec python3 {PEER}"]
    with (
        running(f"[servers.own]\ncommand = {json.dumps(slow)}\nsharing = 'session'\n{MAY_READ}") as daemon,
        http(daemon, "/servers/own/mcp", session=True) as first,
    ):
        spare = spare_of(daemon)
        wait_for(lambda: time.time() - spare.since > 2.0, "the spare has started")
        began = time.monotonic()

        first.post(call(1, "echo"))

        assert time.monotonic() - began < 1.0


def spare_of(daemon: Daemon) -> InstanceStatus:
    def look() -> InstanceStatus | None:
        return next((one for one in daemon.control.server("own").instances if one.state == "INITIALIZING"), None)

    found: InstanceStatus = wait_for(look, "there is a spare")
    return found

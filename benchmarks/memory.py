"""Memory as users feel it: some clients times some servers, each client with its own copies, against all through mcpd.

    python benchmarks/memory.py [--clients 10] [--servers 10] [--rounds 1]

The servers are real ones of npm and PyPI (`scripts/peers` installs them), in turns, and started without `npx` and
`uvx`, which would add a process or two to each copy. A *client* here is what matters of one: it speaks with all of its
servers over stdio, initialises each and lists its tools; with mcpd it starts one `mcpctl connect`, as a desktop client
does, and gets the same tools through it. Clients start together, as after a login; with mcpd the time counts from the
daemon's own start. On a machine that does other things too, look at the CPU time. Processes and PSS (memory that is
shared counts once, in parts) are of everything that was started: with mcpd also `mcpctl connect`, the daemon, and
bubblewrap's two small processes for each server.
"""

import argparse
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from gateways import end

PEERS = Path(__file__).resolve().parents[1] / ".venv" / "peers"
NODE_MODULES = PEERS / "node" / "node_modules" / "@modelcontextprotocol"
DEADLINE = 600.0
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"sampling": {}, "elicitation": {}},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


def commands(count: int, folder: Path) -> list[list[str]]:
    """As many servers, node's and Python's in turns."""
    kinds = [
        ["node", str(NODE_MODULES / "server-memory" / "dist" / "index.js")],
        [str(PEERS / "python" / "bin" / "mcp-server-time"), "--local-timezone", "UTC"],
        ["node", str(NODE_MODULES / "server-filesystem" / "dist" / "index.js"), str(folder)],
        [str(PEERS / "python" / "bin" / "mcp-server-git")],
        ["node", str(NODE_MODULES / "server-everything" / "dist" / "index.js"), "stdio"],
        [str(PEERS / "python" / "bin" / "mcp-server-time"), "--local-timezone", "Europe/Berlin"],
    ]
    return [kinds[number % len(kinds)] for number in range(count)]


@dataclass
class Conversation:
    """One server over stdio, from `initialize` to its tools."""

    process: "subprocess.Popen[bytes]"
    tools: int = -1
    _held: bytes = field(default=b"", repr=False)

    def send(self, *messages: dict[str, object]) -> None:
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), b"".join(json.dumps(one).encode() + b"\n" for one in messages))

    def take(self) -> bool:
        """Read what is there; True once the tools are known."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        if not data:
            raise SystemExit(f"a server ended: {self.process.args}")
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            message = json.loads(line) if line.startswith(b"{") else {}
            if message.get("id") == 0 and "result" in message:
                self.send(INITIALIZED, LIST)
            elif message.get("id") == 1 and "result" in message:
                self.tools = len(message["result"]["tools"])
        return self.tools >= 0

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def talk(commands: list[list[str]], env: dict[str, str], stack: ExitStack) -> tuple[float, int]:
    """Start these all at once; seconds until the last client has the tools of all that it speaks
    with, and how many tools that are for all of them."""
    began = time.perf_counter()
    tools = 0
    with selectors.DefaultSelector() as selector:
        for command in commands:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
            )
            one = Conversation(process)
            stack.callback(one.close)
            one.send(INITIALIZE)
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, one)
        while selector.get_map():
            ready = selector.select(DEADLINE)
            if not ready:
                raise SystemExit("no answer in time")
            for key, _ in ready:
                if key.data.take():
                    selector.unregister(key.fileobj)
                    tools += key.data.tools
    return time.perf_counter() - began, tools


def processes(root: int) -> list[int]:
    """All below `root`."""
    found: list[int] = []
    level = [root]
    while level:
        level = [
            int(child)
            for pid in level
            for task in _tasks(pid)
            for child in _read(f"/proc/{pid}/task/{task}/children").split()
        ]
        found += level
    return found


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def pss(pid: int) -> int:
    """KiB (proc(5), smaps_rollup)."""
    _, found, rest = _read(f"/proc/{pid}/smaps_rollup").partition("Pss:")
    return int(rest.split()[0]) if found else 0


def cpu(pid: int) -> float:
    """Seconds of user and system time (proc(5), stat), of those that have ended below it, too."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


@dataclass
class Cost:
    """Of one way, with everything up and idle."""

    processes: int
    mib: float
    cpu: float
    last: float
    tools: int
    daemon: float = 0.0


def weigh(last: float, tools: int, daemon: int | None = None) -> Cost:
    time.sleep(2.0)  # what starts leave behind is given back
    below = processes(os.getpid())
    mine = pss(daemon) / 1024 if daemon is not None else 0.0
    return Cost(len(below), sum(map(pss, below)) / 1024, sum(map(cpu, below)), last, tools, mine)


def direct(clients: int, servers: list[list[str]]) -> Cost:
    """Each client starts its own copies."""
    with ExitStack() as stack:
        return weigh(*talk([command for _ in range(clients) for command in servers], dict(os.environ), stack))


def through_mcpd(clients: int, servers: list[list[str]], folder: Path) -> Cost:
    """All clients share them."""
    with daemon(servers, folder) as (process, env), ExitStack() as stack:
        began = time.perf_counter()
        wait_ready(env, len(servers))
        up = time.perf_counter() - began
        connect = [str(Path(sys.executable).parent / "mcpctl"), "connect"]
        last, tools = talk([connect] * clients, env, stack)
        return weigh(up + last, tools, process.pid)


@contextmanager
def daemon(servers: list[list[str]], folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", dict[str, str]]]:
    config = folder / "mcpd.toml"
    lines = ['[daemon]\nstate_dir = "state"\nruntime_dir = "run"\nlog_level = "error"\n[frontdoor]\nport = 0']
    lines.append('[defaults]\nstart_timeout = "2m"\n[defaults.sandbox]\nprofile = "filesystem"')
    lines.append(f"read = {json.dumps([str(PEERS), str(folder / 'files')])}")
    lines += [f"[servers.s{number}]\ncommand = {json.dumps(command)}" for number, command in enumerate(servers)]
    config.write_text("\n".join(lines) + "\n")
    env = {**os.environ, "MCPD_CONFIG": str(config)}
    process = subprocess.Popen(
        [sys.executable, "-m", "mcpd", "start", "--quiet"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield process, env
    finally:
        end(process)


def wait_ready(env: dict[str, str], count: int) -> None:
    from mcpd.control.client import ControlClient, NoDaemon

    control = ControlClient(Path(env["MCPD_CONFIG"]).parent / "run" / "control.sock")
    deadline = time.perf_counter() + DEADLINE
    while time.perf_counter() < deadline:
        try:
            if sum(one.state == "READY" for one in control.servers()) == count:
                return
        except NoDaemon:
            pass
        time.sleep(0.02)
    raise SystemExit(f"servers that are not READY: {[(one.name, one.last_error) for one in control.servers()]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--servers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if not NODE_MODULES.is_dir():
        raise SystemExit("the servers are missing: run `scripts/peers`")
    rows = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="mcpd-bench-") as name:
            (Path(name) / "files").mkdir()
            servers = commands(options.servers, Path(name) / "files")
            own, shared = direct(options.clients, servers), through_mcpd(options.clients, servers, Path(name))
            if own.tools > shared.tools:
                raise SystemExit(f"{own.tools} tools, but only {shared.tools} through mcpd")
            rows.append((own, shared))
    print(f"{options.clients} clients x {options.servers} servers (npm and Python); medians of {options.rounds}\n")
    print(f"each client has {rows[0][0].tools // options.clients} tools\n")
    print("| | each its own | through mcpd | ratio |\n|---|--:|--:|--:|")
    for title, unit, of in (
        ("processes", "", lambda cost: cost.processes),
        ("PSS of all of them", " MiB", lambda cost: cost.mib),
        ("CPU time until that", " s", lambda cost: cost.cpu),
        ("until the last client can call", " s", lambda cost: cost.last),
    ):
        own, shared = median(of(one) for one, _ in rows), median(of(two) for _, two in rows)
        print(f"| {title} | {own:.4g}{unit} | {shared:.4g}{unit} | {own / shared:.1f} |")
    print(f"\nof which mcpd itself: {median(two.daemon for _, two in rows):.1f} MiB")


if __name__ == "__main__":
    main()

"""What mcpd takes to start, to hold servers, and to bring one back: seconds and bytes.

    python benchmarks/operations.py [--rounds 3] [--servers 20] [--command "python my_server.py"]

`bare` is the same number of children started side by side with nothing in between, round by round in turn with mcpd.
That is done twice: with a child that starts in no time, which leaves little but the start of mcpd itself and of the
sandboxes, and with real servers, scripts on the worker framework (`echo_server.py`), as their launcher starts them. For
a server of your own give --command (and its tool, --tool).
"""

import argparse
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from gateways import CHILD, HERE, Gateway, mcpd
from load import Client

from mcpd.sandbox.probe import find_launcher

SCRIPT = HERE / "echo_server.py"
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"bench","version":"1"}}}\n'
)
REST = (
    b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b","arguments":{"text":"hi"}}}\n'
)


def bare(command: list[str], count: int, tool: str) -> float:
    """Seconds until as many children, started at once, have each answered a call."""
    began = time.perf_counter()
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for child in children:
            assert child.stdin is not None
            assert child.stdout is not None
            os.write(child.stdin.fileno(), INITIALIZE)
            selector.register(child.stdout, selectors.EVENT_READ, child)
        while selector.get_map():
            for key, _ in selector.select(60.0):
                line = os.read(key.fd, 1 << 16)
                if b'"id":0' in line:
                    os.write(key.data.stdin.fileno(), REST % tool.encode())
                elif b'"id":1' in line:
                    selector.unregister(key.fileobj)
    took = time.perf_counter() - began
    for child in children:
        child.kill()
        child.communicate()
    return took


def call(gateway: Gateway, server: str, tool: str) -> None:
    """One call in a session of its own."""
    client = Client(0, gateway.port, gateway.path("streamable", server), "streamable", tool, 10)
    client.call()
    while not client.take():
        pass
    client.close()


def started(count: int, command: list[str], tool: str, script: Path | None = None) -> tuple[float, float, float]:
    """Seconds from `mcpd start` to the first call, and until every server was called; MiB of the daemon then."""
    with mcpd(count, command, script=script) as gateway:
        call(gateway, "s0", tool)
        first = time.perf_counter() - gateway.started_at
        for number in range(1, count):
            call(gateway, f"s{number}", tool)
        every = time.perf_counter() - gateway.started_at
        time.sleep(1.0)  # what the start left behind is given back
        return first, every, gateway.rss() / 2**20


def back(command: list[str], tool: str) -> float:
    """Seconds from kill -9 of the child to an answer in the session that was there before."""
    with mcpd(1, command) as gateway:
        client = Client(0, gateway.port, gateway.path("streamable"), "streamable", tool, 10)
        client.call()
        while not client.take():
            pass
        os.kill(server_pid(gateway.pid, command), signal.SIGKILL)
        began = time.perf_counter()
        answered = False
        while not answered:
            client.call()
            try:
                while not (answered := client.take()):
                    pass
            except ValueError:
                continue  # an error answer: the call was lost with the child
        client.close()
        return time.perf_counter() - began


def server_pid(pid: int, command: list[str]) -> int:
    """The process of the one server: the last below `pid` that runs this command, behind what contains it."""
    found, level = 0, [pid]
    while level:
        level = [int(one) for up in level for one in Path(f"/proc/{up}/task/{up}/children").read_text().split()]
        for one in level:
            if command[-1].encode() in Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0"):
                found = one
    return found


def idle_session(count: int) -> float:
    """KiB of the daemon for each session over HTTP+SSE that is open and says nothing."""
    with mcpd() as gateway:
        path = gateway.path("sse")
        held = [Client(0, gateway.port, path, "sse", "echo", 0) for _ in range(16)]
        before = gateway.rss()
        held += [Client(0, gateway.port, path, "sse", "echo", 0) for _ in range(count)]
        time.sleep(1.0)
        grown = gateway.rss() - before
        for client in held:
            client.close()
        return grown / count / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--command", type=shlex.split, default=CHILD)
    parser.add_argument("--tool", default="echo", help="one that takes a text and gives it back")
    options = parser.parse_args()
    rounds, command, tool = range(options.rounds), options.command, options.tool
    one = [started(1, command, tool)[0] for _ in rounds]
    pairs = [(bare(command, options.servers, tool), *started(options.servers, command, tool)) for _ in rounds]
    launched = [sys.executable, str(launcher), str(SCRIPT)] if (launcher := find_launcher()) else []
    bare(launched, 1, "echo")  # so that neither is the one that reads the files for the other
    real = [(bare(launched, options.servers, "echo"), *started(options.servers, [], "echo", SCRIPT)) for _ in rounds]
    alone = median(bare(command, 1, tool) for _ in rounds)
    again = median(back(command, tool) for _ in rounds)
    ratio = median(every / least for least, _, every, _ in pairs)
    print("| measure | | target |\n|---|--:|---|")
    print(f"| `mcpd start` to the first call, 1 server | {median(one):.2f} s | ≤ 1.2 s |")
    print(f"| {options.servers} children bare, side by side | {median(row[0] for row in pairs):.2f} s | |")
    print(f"| `mcpd start` until all of {options.servers} were called | {median(row[2] for row in pairs):.2f} s | |")
    print(f"| the same, x bare | {ratio:.2f} | ≤ 1.4 |")
    real_ratio = median(every / least for least, _, every, _ in real)
    print(f"| {options.servers} real servers bare, side by side | {median(row[0] for row in real):.2f} s | |")
    print(f"| `mcpd start` until all of them were called | {median(row[2] for row in real):.2f} s | |")
    print(f"| the same, x bare | {real_ratio:.2f} | ≤ 1.4 |")
    print(f"| RSS of the daemon with {options.servers} | {median(row[3] for row in pairs):.1f} MiB | ≤ 65 MiB |")
    print(f"| each idle HTTP+SSE session | {idle_session(options.sessions):.1f} KiB | ≤ 20 KiB |")
    print(f"| one child bare | {alone:.2f} s | |")
    print(f"| back in the same session after kill -9 | {again:.2f} s | ≤ 0.3 s + one child |")


if __name__ == "__main__":
    main()

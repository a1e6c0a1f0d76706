"""The least that a gateway of this kind can cost in Python: the measure for mcpd, and of no other use.

A bare ASGI function on uvicorn (uvloop, httptools) that writes each body to one child as a line, with nothing but the
id rewritten, and answers with the child's line. No checks, no sessions, no tokens; nothing happens when the child dies.

    python benchmarks/floor.py --port 8000 -- python benchmarks/child.py
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
import uvicorn


class Request(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Response(msgspec.Struct):
    id: int = 0
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


REQUEST, RESPONSE = msgspec.json.Decoder(Request), msgspec.json.Decoder(Response)
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"floor","version":"1"}}}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
)


class Child:
    """The one child. What is asked within a turn of the loop is written at once."""

    def __init__(self, command: list[str]) -> None:
        self.loop = asyncio.get_running_loop()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.stdin, self.stdout = process, process.stdin.fileno(), process.stdout.fileno()
        os.write(self.stdin, INITIALIZE)
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        self.ids = itertools.count(1)
        self.waiting: dict[int, tuple[bytes, Callable[[bytes], None]]] = {}
        self.queue: list[bytes] = []
        self.unsent = memoryview(b"")
        self.rest: list[bytes] = []
        self.loop.add_reader(self.stdout, self.readable)

    def ask(self, body: bytes, done: Callable[[bytes], None]) -> None:
        asked = REQUEST.decode(body)
        number = next(self.ids)
        self.waiting[number] = bytes(asked.id), done
        if not self.queue and not self.unsent:
            self.loop.call_soon(self.flush)
        method, params = asked.method.encode(), asked.params
        self.queue.append(b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}\n' % (number, method, params))

    def flush(self) -> None:
        self.loop.remove_writer(self.stdin)
        try:
            while self.queue or self.unsent:
                if not self.unsent:
                    self.unsent = memoryview(b"".join(self.queue))
                    self.queue.clear()
                self.unsent = self.unsent[os.write(self.stdin, self.unsent) :]
        except BlockingIOError:
            self.loop.add_writer(self.stdin, self.flush)

    def readable(self) -> None:
        data = os.read(self.stdout, 1 << 18)
        if not data:
            self.loop.remove_reader(self.stdout)
            return
        self.rest.append(data)
        if b"\n" not in data:
            return
        *lines, rest = b"".join(self.rest).split(b"\n")
        self.rest = [rest] if rest else []
        for line in lines:
            answer = RESPONSE.decode(line)
            if answer.id in self.waiting:
                id, done = self.waiting.pop(answer.id)
                kind, value = (b"result", answer.result) if len(answer.result) else (b"error", answer.error)
                done(b'{"jsonrpc":"2.0","id":%b,"%b":%b}' % (id, kind, value))


class Floor:
    """The ASGI application: Streamable HTTP at /mcp, HTTP+SSE at /sse and /messages/."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.child: Child | None = None
        self.streams: dict[bytes, asyncio.Queue[bytes]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.child is None:
            self.child = Child(self.command)
        if scope["path"] == "/sse":
            await self.stream(receive, send)
            return
        event = await receive()
        body = event["body"]
        while event.get("more_body"):
            event = await receive()
            body += event["body"]
        if scope["method"] == "DELETE":  # there is nothing to end
            await self.reply(send, 200, b"")
            return
        if scope["path"] == "/mcp":
            future: asyncio.Future[bytes] = self.child.loop.create_future()
            answer = self.own(body)
            if answer is None:
                self.child.ask(body, future.set_result)
                answer = await future
            await self.reply(send, 200 if answer else 202, answer)
            return
        events = self.streams[scope["query_string"].partition(b"session_id=")[2]]
        answer = self.own(body)
        if answer is None:
            self.child.ask(body, lambda line: events.put_nowait(b"event: message\r\ndata: %b\r\n\r\n" % line))
        elif answer:
            events.put_nowait(b"event: message\r\ndata: %b\r\n\r\n" % answer)
        await self.reply(send, 202, b"")

    def own(self, body: bytes) -> bytes | None:
        """What is not for the child: the answer to `initialize`, nothing for a notification; None for a call."""
        if b'"tools/call"' in body[:200]:
            return None
        message = json.loads(body)
        if "id" not in message:
            return b""
        if message["method"] != "initialize":
            return None
        version = message["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "f", "version": ""}}
        return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()

    async def reply(self, send: Any, status: int, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers.append((b"mcp-session-id", b"0" * 32))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def stream(self, receive: Any, send: Any) -> None:
        id = b"%032x" % len(self.streams)
        events = self.streams[id] = asyncio.Queue()
        events.put_nowait(b"event: endpoint\r\ndata: /messages/?session_id=%b\r\n\r\n" % id)
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await receive()
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            event = asyncio.ensure_future(events.get())
            await asyncio.wait({event, gone}, return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                await send({"type": "http.response.body", "body": event.result(), "more_body": True})
            else:
                event.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("command", nargs="+", help="the child's command, after --")
    options = parser.parse_args()
    uvicorn.run(
        Floor(options.command),
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()

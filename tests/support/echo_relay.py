"""The real relay in front of a child that runs in this process: a server that a test holds in its hand.

Tools of the child: `echo` answers with its arguments; `steps` sends `count` progress notices, then answers; `hold`
answers when the test says `release`; `ask` asks its client for a sample and answers with what it got; `shout` logs,
then answers; `big` answers with `size` bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcpd.clock import SystemClock
from mcpd.config.registry import Registry, ServerSpec, ViewSpec
from mcpd.config.settings import DaemonSettings, FrontdoorSettings
from mcpd.fleet.link import InstanceLink
from mcpd.fleet.relay import Relay
from mcpd.routing.info import Lists, ServerInfo

TOOLS = ("echo", "steps", "hold", "ask", "shout", "big")
TOOL_ENTRIES = [{"name": tool, "inputSchema": {"type": "object"}} for tool in TOOLS]
CAPABILITIES: dict[str, Any] = {"tools": {"listChanged": True}, "logging": {}, "resources": {"subscribe": True}}


def registry(*names: str, views: dict[str, tuple[str, ...]] | None = None, **frontdoor: Any) -> Registry:
    """A registry of servers of these names, whose commands are never run."""
    nowhere = Path("/nonexistent")
    return Registry(
        path=nowhere,
        daemon=DaemonSettings(state_dir=nowhere, runtime_dir=nowhere, secrets_dir=nowhere),
        frontdoor=FrontdoorSettings(**frontdoor),
        servers={name: ServerSpec(name=name, command=("/bin/true",)) for name in names},
        views={name: ViewSpec(name=name, servers=members) for name, members in (views or {}).items()},
    )


def relay_for(made: Registry) -> tuple[Relay, dict[str, EchoChild]]:
    """A relay with a READY child for each server."""
    relay = Relay("0", SystemClock(), made)
    return relay, {name: EchoChild(relay, name) for name in made.servers}


class EchoChild:
    """A child that answers on the next turn of the loop, as one behind a pipe would."""

    def __init__(self, relay: Relay, name: str) -> None:
        self.calls: list[dict[str, Any]] = []  # what came in, oldest first
        self.cancelled: list[int] = []
        self.held: list[int] = []
        self.full = False  # whether its pipe is
        self._arrived = asyncio.Event()
        self._asked: dict[str, int] = {}
        capabilities = {key: json.dumps(value).encode() for key, value in CAPABILITIES.items()}
        entries = tuple(json.dumps(entry).encode() for entry in TOOL_ENTRIES)
        server = {"name": name, "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": server}
        info = ServerInfo("2025-11-25", json.dumps(result).encode(), capabilities, lists=Lists(tools=entries))
        link = InstanceLink(name, name, 1, self.offer, lambda message: None, lambda frame: None, info)
        self._receive: Callable[[bytes], None] = relay.attach(link)

    def offer(self, frame: bytes) -> bool:
        assert b"\n" not in frame
        if self.full:
            return False
        asyncio.get_running_loop().call_soon(self._handle, json.loads(frame))
        return True

    async def arrived(self, count: int) -> None:
        """Return when `count` requests have come in since the start."""
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                self._arrived.clear()
                await self._arrived.wait()

    def release(self) -> None:
        """Answer the oldest call of `hold`."""
        self._answer(self.held.pop(0), "released")

    def say(self, message: dict[str, Any]) -> None:
        """Send any message."""
        self._receive(json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode())

    def _handle(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "notifications/cancelled", "params": {"requestId": number}}:
                self.cancelled.append(number)
            case {"method": "tools/call", "id": number, "params": params}:
                self._call(number, params)
            case {"method": "tools/list", "id": number}:
                self.say({"id": number, "result": {"tools": TOOL_ENTRIES}})
            case {"method": _, "id": number}:
                self.say({"id": number, "result": {}})
            case {"id": asked} if str(asked) in self._asked:
                self._answer(self._asked.pop(str(asked)), message.get("result", message.get("error")))
        self.calls.append(message)
        self._arrived.set()

    def _call(self, number: int, params: dict[str, Any]) -> None:
        arguments = params.get("arguments", {})
        match params["name"]:
            case "echo":
                self._answer(number, arguments)
            case "steps":
                token = params["_meta"]["progressToken"]
                for step in range(arguments["count"]):
                    self.say({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
                self._answer(number, "done")
            case "hold":
                self.held.append(number)
            case "ask":
                self._asked[f"s{number}"] = number
                sample = {"messages": [], "maxTokens": 1}
                self.say({"id": f"s{number}", "method": "sampling/createMessage", "params": sample})
            case "shout":
                self.say({"method": "notifications/message", "params": {"level": "error", "data": "loud"}})
                self._answer(number, "shouted")
            case "big":
                self._answer(number, "x" * arguments["size"])

    def _answer(self, number: int, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.say({"id": number, "result": {"content": [{"type": "text", "text": text}], "isError": False}})

"""A router with servers and sessions, driven by hand: what goes in, and what comes out, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcpd.config.registry import Registry, ServerSpec, ViewSpec
from mcpd.config.settings import DaemonSettings, FrontdoorSettings
from mcpd.routing.effects import Deliver, Effect, End, WriteLine
from mcpd.routing.info import Lists, ServerInfo
from mcpd.routing.router import Router
from mcpd.routing.sessions import Session
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import decode

DAEMON = DaemonSettings(state_dir=Path("/state"), runtime_dir=Path("/run"), secrets_dir=Path("/secrets"))
CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "prompts": {}, "logging": {}}


def registry(*servers: ServerSpec, views: dict[str, tuple[str, ...]] | None = None, **frontdoor: Any) -> Registry:
    return Registry(
        path=Path("/etc/mcpd.toml"),
        daemon=DAEMON,
        frontdoor=FrontdoorSettings(**frontdoor),
        servers={spec.name: spec for spec in servers},
        views={name: ViewSpec(name=name, servers=members) for name, members in (views or {}).items()},
    )


def spec(name: str, **keys: Any) -> ServerSpec:
    return ServerSpec(name=name, command=("/bin/true",), **keys)


def entry(**members: Any) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


def info(
    *tools: str,
    resources: tuple[str, ...] = (),
    templates: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    capabilities: dict[str, Any] | None = None,
    instructions: str | None = None,
) -> ServerInfo:
    caps = CAPABILITIES if capabilities is None else capabilities
    result = {"protocolVersion": "2025-11-25", "capabilities": caps, "serverInfo": {"name": "child", "version": "1"}}
    if instructions:
        result["instructions"] = instructions
    return ServerInfo(
        protocol_version="2025-11-25",
        result=json.dumps(result).encode(),
        capabilities={key: json.dumps(value).encode() for key, value in caps.items()},
        instructions=instructions,
        lists=Lists(
            tools=tuple(entry(name=name, inputSchema={"type": "object"}) for name in tools),
            prompts=tuple(entry(name=name) for name in prompts),
            resources=tuple(entry(uri=uri, name=uri) for uri in resources),
            templates=tuple(entry(uriTemplate=uri, name=uri) for uri in templates),
        ),
    )


class Bench:
    """Carries out effects: `written[instance]` and `got[sink]` hold decoded messages, `ended` the sinks that ended."""

    def __init__(self, *servers: ServerSpec, **options: Any) -> None:
        self.handles = 0
        self.router = Router("0", self._new_handle)
        self.now = 1000.0
        self.written: dict[str, list[Any]] = {}
        self.got: dict[Any, list[Any]] = {}
        self.final: dict[Any, int] = {}
        self.ended: list[Any] = []
        self.others: list[Effect] = []
        self._sessions = 0
        self.run(self.router.configure(registry(*servers, **options)))

    def _new_handle(self) -> str:
        self.handles += 1
        return f"handle{self.handles}"

    def run(self, effects: Any) -> None:
        for effect in effects:
            match effect:
                case WriteLine(instance, frame, _):
                    assert b"\n" not in frame
                    self.written.setdefault(instance, []).append(json.loads(frame))
                case Deliver(sink, frame, final):
                    self.got.setdefault(sink, []).append(json.loads(frame))
                    if final:
                        self.final[sink] = self.final.get(sink, 0) + 1
                case End(sink):
                    self.ended.append(sink)
                case _:
                    self.others.append(effect)

    def up(self, server: str, about: ServerInfo | None = None, key: str | None = None, generation: int = 1) -> None:
        self.run(self.router.presence.attach(key or server, server, generation, about or info("echo"), self.now))

    def open(self, view: View, *, initialize: bool = True, **capabilities: Any) -> Session:
        self._sessions += 1
        name = f"s{self._sessions}"
        session = self.router.open_session(name, view, "me", "stdio", f"{name}.push", self.now)
        if initialize:
            params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t"}}
            self.ask(session, "init", "initialize", params)
            assert "result" in self.got[f"{name}.init"][0], self.got
        return session

    def ask(self, session: Session, id: Any, method: str, params: Any = None) -> str:
        """Send a request; returns the name of the sink that gets its answer."""
        message = {"jsonrpc": "2.0", "id": id, "method": method} | ({} if params is None else {"params": params})
        sink = f"{session.id}.{id}"
        self.run(self.router.from_client(session, decode(json.dumps(message).encode()), sink, self.now))
        return sink

    def tell(self, session: Session, message: dict[str, Any]) -> None:
        """Send a notification or an answer."""
        frame = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.run(self.router.from_client(session, decode(frame), "none", self.now))

    def say(self, instance: str, message: dict[str, Any]) -> None:
        """A child says something."""
        frame = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.run(self.router.from_instance(self.router.state.upstreams[instance], decode(frame), self.now))

    def answer(self, instance: str, result: Any, index: int = -1) -> None:
        """A child answers the request that it was sent at `index`."""
        self.say(instance, {"id": self.written[instance][index]["id"], "result": result})

    def one(self, sink: Any) -> Any:
        """The one message that a sink got."""
        messages = self.got.get(sink, [])
        assert len(messages) == 1, messages
        return messages[0]

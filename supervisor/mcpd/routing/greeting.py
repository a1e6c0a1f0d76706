"""What a client is told of a view when it says hello: the results of `initialize` and of `server/discover`."""

from __future__ import annotations

from mcpd.routing.correlation import Server
from mcpd.routing.info import ServerInfo
from mcpd.routing.sessions import Session
from mcpd.routing.state import State
from mcpd.wire import eras
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import Bytes, dump, members, pack

OF_TOOLS = frozenset({"tools", "logging"})  # capabilities of which a client has use that may use tools only
# A view of several servers claims all of these, so that a server that is added, or comes up late, is of use to
# clients that read capabilities only once.
MERGED_CAPABILITIES = (
    b'{"completions":{},"logging":{},"prompts":{"listChanged":true},'
    b'"resources":{"listChanged":true,"subscribe":true},"tools":{"listChanged":true}}'
)


def merged_initialize(state: State, session: Session, version: str) -> bytes:
    """For a view of several servers."""
    found: dict[str, Bytes] = {
        "protocolVersion": dump(version),
        **_merged(state, session),
        "serverInfo": dump({"name": "mcpd", "version": state.version}),
    }
    return pack(found)


def merged_discovery(state: State, session: Session) -> bytes:
    """For a view of several servers."""
    return pack({"supportedVersions": dump(eras.PER_REQUEST_REVISIONS), **_merged(state, session)})


def _merged(state: State, session: Session) -> dict[str, Bytes]:
    sections = [
        f"## {name}\n\n{server.info.instructions}"
        for name in session.servers
        if (server := state.servers[name]).info is not None and server.info.instructions
    ]
    found: dict[str, Bytes] = {"capabilities": MERGED_CAPABILITIES}
    if sections:
        found["instructions"] = dump("\n\n".join(sections))
    return found


def single_initialize(info: ServerInfo, version: str, session: Session, server: Server) -> bytes:
    """The child's own answer, but for the revision and capabilities of which the client is not to know."""
    hidden = _hidden(session, server)
    found = members(info.result)
    if info.era is Era.PER_REQUEST:
        kept: dict[str, Bytes] = {key: found[key] for key in ("capabilities", "instructions") if key in found}
        found = {**kept, "serverInfo": info.server_info}  # type: ignore[dict-item]
    found_capabilities = members(found["capabilities"]) if "capabilities" in found else {}
    if not hidden.isdisjoint(found_capabilities):
        capabilities = pack({key: value for key, value in found_capabilities.items() if key not in hidden})
        return pack({**found, "capabilities": capabilities, "protocolVersion": dump(version)})
    return pack({**found, "protocolVersion": dump(version)})


def single_discovery(info: ServerInfo, session: Session, server: Server) -> bytes:
    """What the server said of itself, less `tasks`, which that era has not."""
    hidden = _hidden(session, server) | {"tasks"}
    found: dict[str, Bytes] = {
        "supportedVersions": dump(eras.PER_REQUEST_REVISIONS),
        "capabilities": pack({key: value for key, value in info.capabilities.items() if key not in hidden}),
    }
    if info.instructions is not None:
        found["instructions"] = dump(info.instructions)
    return pack(found)


def _hidden(session: Session, server: Server) -> frozenset[str]:
    """Capabilities of a server of which a session is not told (the lists of `tasks` would mix clients)."""
    info = server.info
    if info is not None and session.sight is not None and server.name in session.sight.partial:
        return frozenset(info.capabilities) - OF_TOOLS
    return frozenset({"tasks"} if server.shared else ())

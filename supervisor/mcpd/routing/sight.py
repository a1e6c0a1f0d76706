"""What a client with limited grants sees of the servers that there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mcpd.wire.principal import Grants


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Grants, applied to one registry. `tools`: the servers of which only some tools are seen, with these.

    `partial` are those of which nothing but tools is seen: no prompts, no resources, no methods of their own.
    """

    servers: frozenset[str]
    tools: Mapping[str, frozenset[str]]
    partial: frozenset[str]

    def allows(self, server: str, tool: str) -> bool:
        """Whether a tool of a server that is seen, by the server's own name, is seen."""
        only = self.tools.get(server)
        return only is None or tool in only


def sight_of(grants: Grants, servers: Iterable[str], views: Mapping[str, tuple[str, ...]]) -> Sight | None:
    """What these grants let see of a registry's `servers` and `views`; None: everything."""
    if grants.unlimited:
        return None
    tools: dict[str, set[str]] = {}
    for server, tool in grants.tools or ():
        tools.setdefault(server, set()).add(tool)
    whole = {server for view in grants.views or () for server in views.get(view, ())} | (grants.servers or frozenset())
    return Sight(
        servers=frozenset(servers) & (whole | tools.keys()),
        tools={server: frozenset(names) for server, names in tools.items()},
        partial=frozenset(tools.keys() - whole),
    )

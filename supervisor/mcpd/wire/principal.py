"""Who a client is, and what it may use: plain values that cross from the front door to the fleet."""

from __future__ import annotations

import msgspec


class Grants(msgspec.Struct, frozen=True):
    """What a client may use of all that there is.

    With nothing named it may use everything. Else it may use the servers that are named, those of the views that are
    named, and those that stand in `tools` as (server, the server's own name for a tool). Of a server that stands in
    `tools` no other tools may be used; of one that stands only there, nothing but these tools.
    """

    servers: frozenset[str] | None = None
    views: frozenset[str] | None = None
    tools: frozenset[tuple[str, str]] | None = None

    @property
    def unlimited(self) -> bool:
        """Whether nothing is named."""
        return self.servers is None and self.views is None and self.tools is None


EVERYTHING = Grants()


class Principal(msgspec.Struct, frozen=True):
    """Somebody who has shown who they are; two are equal if they are the same one with the same grants."""

    name: str
    grants: Grants = EVERYTHING

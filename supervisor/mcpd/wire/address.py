"""Plain values that name an endpoint: they cross from the front door to the fleet."""

from __future__ import annotations

from typing import Literal

import msgspec

Transport = Literal["streamable-http", "http+sse", "stdio"]


class View(msgspec.Struct, frozen=True):
    """What an endpoint shows: every server, one server under its own names, or a view of the registry."""

    kind: Literal["all", "server", "view"]
    name: str = ""

    def __str__(self) -> str:
        return self.kind if self.kind == "all" else f"{self.kind}:{self.name}"

"""What a server said about itself when it was initialised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mcpd.wire.eras import Era

ListKind = Literal["tools", "prompts", "resources", "templates"]
LIST_KINDS: tuple[ListKind, ...] = ("tools", "prompts", "resources", "templates")


@dataclass(frozen=True, slots=True)
class Lists:
    """All pages of a server's lists: each entry the bytes of one JSON object, in the server's order."""

    tools: tuple[bytes, ...] = ()
    prompts: tuple[bytes, ...] = ()
    resources: tuple[bytes, ...] = ()
    templates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The result of a child's `initialize` (or `server/discover`, in the per-request era), and its lists.

    `result` is the whole result object as it came; `capabilities` maps each of its capabilities to the raw JSON of
    its value; `instructions` is text.
    """

    protocol_version: str
    result: bytes
    capabilities: Mapping[str, bytes] = field(default_factory=dict)
    server_info: bytes = b"{}"
    instructions: str | None = None
    lists: Lists = Lists()
    era: Era = Era.HANDSHAKE

"""The revisions of the protocol and the two eras they fall into."""

from __future__ import annotations

from enum import StrEnum

HANDSHAKE_REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_HANDSHAKE = HANDSHAKE_REVISIONS[-1]
PER_REQUEST_REVISIONS = ("2026-07-28",)
BATCH_REVISION = "2025-03-26"  # the only revision whose lifecycle has JSON-RPC batches

META_VERSION = "io.modelcontextprotocol/protocolVersion"


class Era(StrEnum):
    """How a peer opens: with `initialize`, or with metadata on each request."""

    HANDSHAKE = "handshake"
    PER_REQUEST = "per-request"


def negotiate(asked: str) -> str:
    """The revision answered to a client that asks for `asked`: the same if known, else our latest (lifecycle)."""
    return asked if asked in HANDSHAKE_REVISIONS else LATEST_HANDSHAKE

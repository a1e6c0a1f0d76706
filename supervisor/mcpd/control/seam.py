"""What the control API needs of whoever runs the servers: the seam between the two.

It and `view` import nothing else of ours, so that both sides may use them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from mcpd.control.view import (
    DaemonStatus,
    Event,
    Gap,
    IsolationStatus,
    Outcome,
    PinDifference,
    PinStatus,
    ReloadReport,
    ServerDetail,
    ServerStatus,
    SessionStatus,
    TokenRequest,
    TokenStatus,
    ToolStatus,
    Upgrade,
)


class FleetView(Protocol):
    """Implemented by the fleet; called on the event loop. An unknown name of a server raises `errors.NotFound`.

    Commands for one server are carried out one after the other; a caller that is cancelled leaves the command going.
    """

    def servers(self) -> list[ServerStatus]:
        """All servers of the registry, in its order."""
        ...

    def server(self, name: str) -> ServerDetail: ...

    async def start(self, name: str) -> Outcome:
        """Returns when it is READY, or when it is known why it is not. Starting what runs is a success."""
        ...

    async def stop(self, name: str) -> Outcome:
        """Returns when nothing of it runs any more. Stopping what is stopped is a success."""
        ...

    async def restart(self, name: str) -> Outcome:
        """Stop, then start."""
        ...

    async def roll(self, name: str) -> Outcome:
        """Replace its instances one after the other, each old one serving until there is a new one that is READY. If
        that cannot be had the old ones go on, and `ok` is false. Where nothing of it serves: as `restart`."""
        ...

    async def reset_failed(self, name: str) -> Outcome:
        """Forget failures and the delay, and try again now where it is wanted."""
        ...

    async def reload(self, dry_run: bool) -> ReloadReport:
        """Read the registry again. Raises ConfigError if it cannot be used: then nothing is changed."""
        ...

    async def upgrade(self, name: str, version: str | None) -> Upgrade:
        """Install a version of a server's package beside the one that it has (None: the newest); change nothing else.

        Raises ClientFault (it has none), SpawnError.
        """
        ...

    async def prune(self, name: str | None) -> list[str]:
        """Remove installed packages that no server uses; with `name` just other versions of that server's.

        Returns which they were.
        """
        ...

    def isolation(self) -> list[IsolationStatus]:
        """Of each process that runs."""
        ...

    def events(self, after: int) -> EventFeed:
        """Events with `seq` greater than `after`; a negative `after` means the last `-after` of them."""
        ...

    def sessions(self) -> list[SessionStatus]: ...

    async def tools(self, name: str | None) -> list[ToolStatus]:
        """The tools of one server, or of all; a server that is down has those that are remembered."""
        ...

    async def call(self, name: str, tool: str, arguments: bytes, timeout: float, caller: str = "operator") -> bytes:
        """Call a tool by its server's own name for it; `arguments` is a JSON object, returned is the raw result.
        `caller` is who is said to have called it.

        Raises ClientFault (no such tool, bad arguments), ServerFault, CallTimeout, Overloaded.
        """
        ...

    def log_path(self, name: str) -> Path:
        """Where the server's stderr goes; the file need not be there yet. Rotated ones have `.1`, `.2` ... behind."""
        ...

    def daemon(self) -> DaemonStatus: ...

    def request_shutdown(self) -> None:
        """Begin the ordered shutdown; returns at once."""
        ...


class EventFeed(Protocol):
    """Events in their order: first those that are remembered, then each as it comes. A slow reader gets a `Gap`."""

    def take(self) -> list[Event | Gap]:
        """All that is there now, without waiting; iteration goes on behind it."""
        ...

    def __aiter__(self) -> AsyncIterator[Event | Gap]: ...

    async def __anext__(self) -> Event | Gap:
        """The next one; waits for it. Ends (StopAsyncIteration) after `close`, or when the daemon goes down."""
        ...

    def close(self) -> None:
        """The reader is gone; may be called twice."""
        ...


class PinDesk(Protocol):
    """Shows and approves pins; called on the event loop. An unknown server raises NotFound."""

    def pins(self) -> list[PinStatus]: ...

    def differences(self, server: str) -> list[PinDifference]: ...

    def approve(self, server: str) -> PinStatus:
        """Pin what the server offers now. Raises ClientFault if that is not known."""
        ...


class TokenDesk(Protocol):
    """Makes and revokes tokens; called on the event loop."""

    def list(self) -> list[TokenStatus]: ...

    def create(self, asked: TokenRequest) -> str:
        """The token, which is shown this once. Raises ClientFault for a name or a grant that cannot be."""
        ...

    def revoke(self, name: str) -> None:
        """Raises NotFound."""
        ...

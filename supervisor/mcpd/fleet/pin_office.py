"""Pins as operators see them (`control.seam.PinDesk`)."""

from __future__ import annotations

from mcpd.config.registry import ServerSpec
from mcpd.config.suggest import names_there
from mcpd.control.view import PinDifference, PinStatus
from mcpd.errors import ClientFault, NotFound
from mcpd.fleet.engine import Engine
from mcpd.fleet.pins import Pins


class PinOffice:
    """Shows what is pinned, and takes what servers offer now where an operator says so."""

    def __init__(self, engine: Engine, pins: Pins) -> None:
        self._engine = engine
        self._pins = pins

    def pins(self) -> list[PinStatus]:
        return [self._status(spec) for spec in self._engine.registry.servers.values()]

    def differences(self, server: str) -> list[PinDifference]:
        self._spec(server)
        return [
            PinDifference(kind=one.kind, name=one.name, before=one.before, after=one.after)
            for one in self._pins.differences(server)
        ]

    def approve(self, server: str) -> PinStatus:
        spec = self._spec(server)
        if self._pins.problem:
            raise ClientFault(self._pins.problem)
        if not self._pins.approve(server):
            raise ClientFault(
                f"what {server!r} offers now is not known: it has not run since the daemon was started",
                f"start it (`mcpctl start {server}`), look at `mcpctl pins diff {server}`, then approve",
            )
        self._engine.tell(server, "its catalogue was approved")
        self._engine.relay.review_again(server)
        return self._status(spec)

    def _status(self, spec: ServerSpec) -> PinStatus:
        pinned, seen = self._pins.pinned(spec.name), self._pins.seen(spec.name)
        found = self._pins.differences(spec.name)
        entries = [one for one in found if one.kind != "instructions"]
        return PinStatus(
            server=spec.name,
            policy=spec.pin,
            pinned=pinned is not None,
            seen=seen is not None,
            tools=len(pinned.tools) if pinned is not None else 0,
            sha256=pinned.sha256 if pinned is not None else "",
            changed=tuple(one.label for one in entries if one.before is not None and one.after is not None),
            added=tuple(one.label for one in entries if one.before is None),
            removed=tuple(one.label for one in entries if one.after is None),
            instructions_changed=len(entries) < len(found),
        )

    def _spec(self, server: str) -> ServerSpec:
        spec = self._engine.registry.servers.get(server)
        if spec is None:
            raise NotFound(f"there is no server {server!r}", names_there(server, self._engine.registry.servers))
        return spec

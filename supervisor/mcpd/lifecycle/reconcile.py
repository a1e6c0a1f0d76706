"""What has to be done so that what runs becomes what is wanted: the one way by which anything is started.

Boot, reload, a changed file and an operator's command all end here. An instance that died is not reconcile's: its
own machine knows when to try again.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import StrEnum
from typing import TypeAlias

import msgspec

from mcpd.config.registry import ServerSpec
from mcpd.lifecycle.states import State


class Wish(StrEnum):
    """What an operator said about a server, over the registry's `enabled`."""

    UP = "up"
    DOWN = "down"


class Observed(msgspec.Struct, frozen=True):
    """An instance that is there. `state`: where it is, or where it is going if somebody decided that already."""

    server: str
    state: State
    spec: ServerSpec


class Orders(msgspec.Struct, frozen=True):
    """What is to be done once, beyond what the registry and wishes say of good. All are names of servers."""

    replace: Set[str] = frozenset()
    """Their changed entries need new processes."""
    start: Set[str] = frozenset()
    """An operator wants them started now, whatever became of earlier tries."""
    restart: Set[str] = frozenset()
    """An operator wants them stopped and started."""


class Create(msgspec.Struct, frozen=True):
    """There is to be an instance `key`; it is made STOPPED."""

    key: str
    spec: ServerSpec


class Remove(msgspec.Struct, frozen=True):
    """It is in no registry any more: to be stopped, then forgotten."""

    key: str


class Adopt(msgspec.Struct, frozen=True):
    """Its entry reads otherwise now. `restart`: what runs was started by the old one and has to be replaced."""

    key: str
    spec: ServerSpec
    restart: bool


class Raise(msgspec.Struct, frozen=True):
    """To be started; `asked`: by an operator, so that earlier failures do not count."""

    key: str
    asked: bool = False


class Renew(msgspec.Struct, frozen=True):
    """To be stopped and started."""

    key: str


class Lower(msgspec.Struct, frozen=True):
    """To be stopped; `disabled`: because the registry says so."""

    key: str
    disabled: bool


class Lull(msgspec.Struct, frozen=True):
    """Not to be started before it is used: what there is to know about its server is known."""

    key: str


Action: TypeAlias = Create | Remove | Adopt | Raise | Renew | Lower | Lull

SECOND_ERA = "@per-request"
_NO_ORDERS = Orders()
_DOWN = frozenset({State.STOPPED, State.DISABLED})


def instance_keys(spec: ServerSpec) -> tuple[str, ...]:
    """The names of a server's instances: `time`, `time@2`, ...; with one for the other era, if it is to have both.

    One of which each session has its own has one here: that from which mcpd learns what it offers.
    """
    if spec.sharing == "session":
        return (spec.name,)
    second = (f"{spec.name}{SECOND_ERA}",) if spec.era == "both" else ()
    return (spec.name, *(f"{spec.name}@{number}" for number in range(2, spec.instances + 1)), *second)


def is_second_era(key: str) -> bool:
    """Whether an instance is the one that speaks the per-request era, of a server with an instance for each era."""
    return key.endswith(SECOND_ERA)


def reconcile(
    wanted: Mapping[str, ServerSpec],
    wishes: Mapping[str, Wish],
    observed: Mapping[str, Observed],
    orders: Orders = _NO_ORDERS,
    known: Set[str] = frozenset(),
) -> list[Action]:
    """The actions, in the registry's order, removals first. `known`: servers that need no process to be listed, and get
    theirs by being used.

    Carried out and observed again, they leave nothing to do (but for new orders).
    """
    keys = {key: spec for spec in wanted.values() for key in instance_keys(spec)}
    actions: list[Action] = [Remove(key) for key in observed if key not in keys]
    for key, spec in keys.items():
        seen = observed.get(key)
        if seen is None:
            actions.append(Create(key, spec))
        elif seen.spec != spec or spec.name in orders.replace:  # the same entry may stand for other secrets
            actions.append(Adopt(key, spec, restart=spec.name in orders.replace))
        state = State.STOPPED if seen is None else seen.state
        # A lazy server that is not known is learnt from its first instance; the others wait for the first use.
        rests = spec.name in known or (spec.activation == "lazy" and key != spec.name)
        actions.extend(_course(key, spec, wishes.get(spec.name), state, orders, rests))
    return actions


def _course(key: str, spec: ServerSpec, wish: Wish | None, state: State, orders: Orders, rests: bool) -> list[Action]:
    """Up or down, for one instance."""
    if not spec.enabled:
        return [] if state is State.DISABLED else [Lower(key, disabled=True)]
    if wish is Wish.DOWN:
        return [] if state is State.STOPPED else [Lower(key, disabled=False)]
    if spec.name in orders.restart:
        return [Renew(key)]
    if spec.name in orders.start:
        return [Raise(key, asked=True)]
    if state in _DOWN:
        return [Lull(key) if rests else Raise(key)]
    if state is State.IDLE:
        return [] if rests else [Raise(key)]
    # A failed one stays so until somebody asks, or its entry is another; a live one that changed is `Adopt`'s.
    return [Raise(key)] if state is State.FAILED and spec.name in orders.replace else []

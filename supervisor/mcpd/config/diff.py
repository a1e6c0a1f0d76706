"""What a new registry changes, and how each change can be brought about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import BaseModel

from mcpd.config.registry import ProfileSpec, Registry, SandboxSpec

# What the daemon alone acts on: the running process never saw it. Everything else became part of the process.
LIVE_KEYS: Final = frozenset(
    {
        "enabled",
        "instances",
        "idle_timeout",
        "start_timeout",
        "call_timeout",
        "request_rate",
        "request_burst",
        "restart",
        "restart_delay",
        "restart_max_delay",
        "restart_steps",
        "stable_after",
        "start_limit_burst",
        "start_limit_interval",
        "start_limit_action",
        "after",
        "drain_timeout",
        "stop_timeout",
        "liveness",
        "readiness",
        "tools",
        "pin",
    }
)

# Settings that the router takes over with the registry.
LIVE_SETTINGS: Final = frozenset(
    {
        "frontdoor.separator",
        "frontdoor.call_timeout",
        "frontdoor.max_call_time",
        "frontdoor.input_timeout",
        "frontdoor.max_in_flight",
        "frontdoor.request_rate",
        "frontdoor.request_burst",
    }
)


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference of two registries. Servers are named in the order of the files; keys as in the registry."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    restart: Mapping[str, tuple[str, ...]]
    """Servers whose processes have to be replaced, with all of their changed keys."""
    live: Mapping[str, tuple[str, ...]]
    """Servers whose changed keys take effect in the running process."""
    views: tuple[str, ...]
    """Views that are new, gone or different; live."""
    settings: tuple[str, ...]
    """Settings, such as `frontdoor.input_timeout`, that take effect at once."""
    daemon: tuple[str, ...]
    """Settings, such as `frontdoor.port`, that take effect when the daemon is started again."""
    unchanged: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(
            self.added or self.removed or self.restart or self.live or self.views or self.settings or self.daemon
        )


def diff(old: Registry, new: Registry) -> Changes:
    """Compare values, not text: a reordered file or a default that is written out changes nothing."""
    restart: dict[str, tuple[str, ...]] = {}
    live: dict[str, tuple[str, ...]] = {}
    settings = _setting_keys(old, new)
    kept = [name for name in new.servers if name in old.servers]
    for name in kept:
        keys = _server_keys(old, new, name)
        if any(key not in LIVE_KEYS for key in keys):
            restart[name] = keys
        elif keys:
            live[name] = keys
    return Changes(
        added=tuple(name for name in new.servers if name not in old.servers),
        removed=tuple(name for name in old.servers if name not in new.servers),
        restart=restart,
        live=live,
        views=tuple(name for name in {**old.views, **new.views} if old.views.get(name) != new.views.get(name)),
        settings=tuple(key for key in settings if key in LIVE_SETTINGS),
        daemon=tuple(key for key in settings if key not in LIVE_SETTINGS),
        unchanged=tuple(name for name in kept if name not in restart and name not in live),
    )


def with_rotated(changes: Changes, servers: Collection[str]) -> Changes:
    """The same, and these servers have to be restarted because their secrets are others now."""
    restart = {**changes.restart, **{name: (*changes.live.get(name, ()), "env") for name in servers}}
    return replace(
        changes,
        restart=restart,
        live={name: keys for name, keys in changes.live.items() if name not in servers},
        unchanged=tuple(name for name in changes.unchanged if name not in servers),
    )


def _server_keys(old: Registry, new: Registry, name: str) -> tuple[str, ...]:
    before, after = old.servers[name], new.servers[name]
    keys = _changed(before, after)
    if "sandbox" not in keys and _profile(old, before.sandbox) != _profile(new, after.sandbox):
        keys = (*keys, "sandbox")
    return keys


def _profile(registry: Registry, sandbox: SandboxSpec) -> ProfileSpec | None:
    return registry.profiles.get(sandbox.profile)


def _setting_keys(old: Registry, new: Registry) -> tuple[str, ...]:
    tables: tuple[tuple[str, BaseModel, BaseModel], ...] = (
        ("daemon", old.daemon, new.daemon),
        ("frontdoor", old.frontdoor, new.frontdoor),
        ("sandbox", old.sandbox, new.sandbox),
    )
    return tuple(f"{table}.{key}" for table, before, after in tables for key in _changed(before, after))


def _changed(before: BaseModel, after: BaseModel) -> tuple[str, ...]:
    return tuple(key for key in type(after).model_fields if getattr(before, key) != getattr(after, key))

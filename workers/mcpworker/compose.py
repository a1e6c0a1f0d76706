"""Mounting: how names and URIs of a server read in the server that it is mounted in."""

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp.shared.subscriptions import ResourceUpdated, ServerEvent

if TYPE_CHECKING:
    from mcpworker.server import FastMCP

__all__ = ["Listings", "Mount", "Mounts"]

# RFC 3986, 3.1
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*$")


@dataclass(frozen=True, eq=False)
class Mount:
    """A server under a prefix.

    Raises:
        ValueError: resources would get URIs that are none.
    """

    prefix: str
    server: "FastMCP[Any]"
    tool_separator: str = "_"
    resource_separator: str = "+"
    prompt_separator: str = "_"

    def __post_init__(self) -> None:
        scheme = f"{self.prefix}{self.resource_separator}data"
        if not _SCHEME.match(scheme):
            raise ValueError(
                f"Resource prefix or separator would result in an invalid resource URI: {scheme}://… has no valid "
                "scheme; use letters, digits, '+', '-' and '.', beginning with a letter"
            )

    @property
    def tool_prefix(self) -> str:
        return self.prefix + self.tool_separator

    @property
    def resource_prefix(self) -> str:
        return self.prefix + self.resource_separator

    @property
    def prompt_prefix(self) -> str:
        return self.prefix + self.prompt_separator

    def outward(self, event: ServerEvent) -> ServerEvent:
        """A change in the mounted server, in the words of the one it is mounted in."""
        return ResourceUpdated(self.resource_prefix + event.uri) if isinstance(event, ResourceUpdated) else event


class Mounts:
    """The mounts of one server, by prefix."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, Mount] = {}

    def add(self, mount: Mount) -> Mount | None:
        """Add a mount; the one that it replaces, if there was one."""
        replaced = self._by_prefix.get(mount.prefix)
        self._by_prefix[mount.prefix] = mount
        return replaced

    def remove(self, prefix: str) -> Mount:
        """Forget a mount.

        Raises:
            KeyError: there is none under this prefix.
        """
        return self._by_prefix.pop(prefix)

    def __iter__(self) -> Iterator[Mount]:
        return iter(list(self._by_prefix.values()))

    def __bool__(self) -> bool:
        return bool(self._by_prefix)

    def for_tool(self, name: str) -> Iterator[tuple[Mount, str]]:
        """Mounts that a tool's name may belong to with the rest of the name, the longest prefix first."""
        return self._matching(name, "tool_prefix")

    def for_resource(self, uri: str) -> Iterator[tuple[Mount, str]]:
        """Mounts that a URI may belong to, with the rest of the URI, the longest prefix first."""
        return self._matching(uri, "resource_prefix")

    def for_prompt(self, name: str) -> Iterator[tuple[Mount, str]]:
        """Mounts that a prompt's name may belong to, with the rest of the name, the longest prefix first."""
        return self._matching(name, "prompt_prefix")

    def _matching(self, name: str, kind: str) -> Iterator[tuple[Mount, str]]:
        found = [(len(prefix), mount) for mount in self if name.startswith(prefix := getattr(mount, kind))]
        for length, mount in sorted(found, key=lambda pair: -pair[0]):
            yield mount, name[length:]


class Listings:
    """What mounted servers answered when they were last listed, for a while; not at all for 0 seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[Mount, dict[int, tuple[float, dict[str, Any]]]] = {}

    async def get(self, mount: Mount, kind: object, ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The listing of one kind of components of one mount."""
        if self._seconds <= 0:
            return await ask()
        of_mount = self._kept.setdefault(mount, {})
        now = time.monotonic()
        kept = of_mount.get(id(kind))
        if kept is None or now >= kept[0]:
            kept = of_mount[id(kind)] = (now + self._seconds, await ask())
        return kept[1]

    def forget(self, mount: Mount) -> None:
        """Ask the mount anew next time."""
        self._kept.pop(mount, None)

"""What all components have in common: a name, words about it, and how its failures read."""

from collections.abc import Iterable
from typing import Any

from mcp_types import Icon

__all__ = ["Described", "error_text"]


class Described:
    """Name, title, description, tags, icons and `_meta` of a component."""

    def __init__(
        self,
        name: str,
        *,
        title: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.title = title
        self.description = description
        self.tags: set[str] = set(tags or ())
        self.icons = icons
        self.meta = meta

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def error_text(error: BaseException) -> str:
    """What an exception says; its type where it says nothing."""
    return str(error) or type(error).__name__

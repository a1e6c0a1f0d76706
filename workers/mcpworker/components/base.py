"""What all components have in common: a name, words about it, and how its failures read."""

import re
from collections.abc import Iterable
from typing import Any

from mcp_types import Icon

from mcpworker.results import wire_text

__all__ = ["Described", "check_mime_type", "error_text"]

_MIME_TYPE = re.compile(r"[a-zA-Z0-9]+/[a-zA-Z0-9\-+.]+(;.*)?")


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


def check_mime_type(mime_type: str, uri: str) -> str:
    """The MIME type itself.

    Raises:
        ValueError: it is none.
    """
    if not _MIME_TYPE.fullmatch(mime_type):
        raise ValueError(f"resource {uri!r}: {mime_type!r} is no MIME type; write type/subtype")
    return mime_type


def error_text(error: BaseException) -> str:
    """What an exception says; its type where it says nothing."""
    return wire_text(str(error)) or type(error).__name__

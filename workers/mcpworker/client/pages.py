"""All pages of a list."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import mcp_types as types

PageT = TypeVar("PageT", bound=types.PaginatedResult)
ItemT = TypeVar("ItemT")

MAX_PAGES = 1000
"""Pages of one list that are asked for; a server whose cursors never end must not hang its client."""


async def all_pages(
    ask: Callable[[types.PaginatedRequestParams | None], Awaitable[PageT]], items: Callable[[PageT], list[ItemT]]
) -> list[ItemT]:
    """Ask for page after page, until there is none, a cursor comes twice, or there were `MAX_PAGES`."""
    found: list[ItemT] = []
    seen: set[str] = set()
    params: types.PaginatedRequestParams | None = None
    for _ in range(MAX_PAGES):
        page = await ask(params)
        found += items(page)
        cursor = page.next_cursor
        if cursor is None or cursor in seen:
            break
        seen.add(cursor)
        params = types.PaginatedRequestParams(cursor=cursor)
    return found

"""What a client answers when a server asks which roots it may work in."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import mcp_types as types
from mcp.client.session import ClientRequestContext, ListRootsFnT
from pydantic import FileUrl

RequestContext: TypeAlias = ClientRequestContext
RootsList: TypeAlias = Sequence[str | Path | types.Root | FileUrl]
RootsHandler: TypeAlias = Callable[[RequestContext], RootsList | Awaitable[RootsList]]

__all__ = ["RequestContext", "RootsHandler", "RootsList", "convert_roots_list", "create_roots_callback"]


def create_roots_callback(roots: RootsList | RootsHandler) -> ListRootsFnT:
    """Return the SDK's callback for `roots`, which is a list, or a function of the request that gives one.

    An exception in the function becomes the error that the server gets.
    """
    if not callable(roots):
        fixed = types.ListRootsResult(roots=convert_roots_list(roots))

        async def answer_fixed(context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
            return fixed

        return answer_fixed

    async def answer(context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
        try:
            given = roots(context)
            if inspect.isawaitable(given):
                given = await given
            return types.ListRootsResult(roots=convert_roots_list(given))
        except Exception as error:  # noqa: BLE001 - user code; its text is the peer's answer
            return types.ErrorData(code=types.INTERNAL_ERROR, message=str(error))

    return answer


def convert_roots_list(roots: RootsList) -> list[types.Root]:
    """Make `Root` objects of roots, `file://` URIs and absolute paths.

    Raises:
        ValueError: an item is none of these.
    """
    return [_convert_root(item) for item in roots]


def _convert_root(item: str | Path | types.Root | FileUrl) -> types.Root:
    if isinstance(item, types.Root):
        return item
    if isinstance(item, Path) or (isinstance(item, str) and item.startswith("/")):
        return types.Root(uri=FileUrl(Path(item).absolute().as_uri()))
    if isinstance(item, FileUrl) or (isinstance(item, str) and item.startswith("file://")):
        return types.Root(uri=FileUrl(str(item)))
    raise ValueError(f"invalid root {item!r}: give a file:// URI, an absolute path or a Root")

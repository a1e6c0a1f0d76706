"""What a server offers, its own and what is mounted in it: lists, look-ups, calls, and word of changes."""

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ServerEvent, ToolsListChanged
from mcp_types import (
    CallToolResult,
    Completion,
    CompletionArgument,
    CompletionContext,
    GetPromptResult,
    InputRequiredResult,
    PromptReference,
    ReadResourceResult,
    ResourceTemplateReference,
)

from mcpworker.completion import Completer, Reference, complete, completes
from mcpworker.components.prompts import Prompt
from mcpworker.components.resources import Resource
from mcpworker.components.template import ResourceTemplate
from mcpworker.components.tools import Tool
from mcpworker.compose import Listings, Mount, Mounts
from mcpworker.errors import NotFoundError
from mcpworker.logs import get_logger
from mcpworker.registry import Registry

if TYPE_CHECKING:
    from mcpworker.context import Context
    from mcpworker.runs import Run
    from mcpworker.server import FastMCP

__all__ = ["Catalogue", "Readable"]

logger = get_logger("server")

_ItemT = TypeVar("_ItemT")


class Readable(Protocol):
    """A resource that was found by URI."""

    async def contents(
        self, uri: str, context: "Context | None" = None
    ) -> ReadResourceResult | InputRequiredResult: ...


class _Matched:
    """A template, with the parameters that a URI gave it."""

    def __init__(self, template: ResourceTemplate, parameters: Mapping[str, Any]) -> None:
        self._template = template
        self._parameters = parameters

    async def contents(self, uri: str, context: "Context | None" = None) -> ReadResourceResult | InputRequiredResult:
        return await self._template.contents(uri, self._parameters, context)


class Catalogue:
    """The part of a server that knows what there is.

    A subclass that has more to offer than what was added to it (a proxy) extends `get_tools` and its like and
    `_find_tool` and its like; everything else, mounting included, goes through these.
    """

    def __init__(
        self,
        *,
        tools: Registry[Tool],
        resources: Registry[Resource],
        templates: Registry[ResourceTemplate],
        prompts: Registry[Prompt],
        listing_seconds: float,
    ) -> None:
        self._tools = tools
        self._resources = resources
        self._templates = templates
        self._prompts = prompts
        self._mounts = Mounts()
        self._listings = Listings(listing_seconds)
        self._completer: Completer | None = None
        self._parents: weakref.WeakSet[Catalogue] = weakref.WeakSet()
        self._runs: set[Run] = set()

    # Lists --------------------------------------------------------------------------------------------------------

    async def get_tools(self) -> dict[str, Tool]:
        """All tools by the name under which clients know them, mounted ones included."""
        return await self._list(self._tools, "tool_prefix", lambda server: server.get_tools())

    async def get_resources(self) -> dict[str, Resource]:
        """All resources by URI, mounted ones included."""
        return await self._list(self._resources, "resource_prefix", lambda server: server.get_resources())

    async def get_resource_templates(self) -> dict[str, ResourceTemplate]:
        """All templates by URI template, mounted ones included."""
        return await self._list(self._templates, "resource_prefix", lambda server: server.get_resource_templates())

    async def get_prompts(self) -> dict[str, Prompt]:
        """All prompts by the name under which clients know them, mounted ones included."""
        return await self._list(self._prompts, "prompt_prefix", lambda server: server.get_prompts())

    async def _list(self, own: Registry[_ItemT], kind: str, ask: "Callable[[FastMCP[Any]], Any]") -> dict[str, _ItemT]:
        """Own ones first, then each mount's; a mount that cannot be asked is left out, never an error of the whole."""
        found = own.items()
        taken: dict[str, Mount] = {}
        for mount in self._mounts:
            prefix: str = getattr(mount, kind)
            try:
                items = await self._listings.get(mount, own, functools.partial(ask, mount.server))
            except Exception:
                logger.exception("mounted server %r cannot be listed; it is left out", mount.prefix)
                continue
            for key, item in items.items():
                name = prefix + key
                shorter = taken.get(name)
                if name in own or (shorter is not None and len(getattr(shorter, kind)) >= len(prefix)):
                    continue
                found[name], taken[name] = item, mount
        return found

    # Look-ups -----------------------------------------------------------------------------------------------------

    async def _find_tool(self, name: str) -> "tuple[Catalogue, Tool] | None":
        """The tool of this name and the server that it belongs to."""
        tool = self._tools.get(name)
        if tool is not None:
            return self, tool
        for mount, rest in self._mounts.for_tool(name):
            if (found := await mount.server._find_tool(rest)) is not None:
                return found
        return None

    async def _find_resource(self, uri: str) -> "tuple[Catalogue, Readable] | None":
        """The resource under this URI - itself, or by a template - and the server that it belongs to."""
        resource = self._resources.get(uri)
        if resource is not None:
            return self, resource
        for template in self._templates:
            if (parameters := template.matches(uri)) is not None:
                return self, _Matched(template, parameters)
        for mount, rest in self._mounts.for_resource(uri):
            if (found := await mount.server._find_resource(rest)) is not None:
                return found
        return None

    async def _find_prompt(self, name: str) -> "tuple[Catalogue, Prompt] | None":
        """The prompt of this name and the server that it belongs to."""
        prompt = self._prompts.get(name)
        if prompt is not None:
            return self, prompt
        for mount, rest in self._mounts.for_prompt(name):
            if (found := await mount.server._find_prompt(rest)) is not None:
                return found
        return None

    # Calls --------------------------------------------------------------------------------------------------------

    async def _call(
        self, name: str, arguments: dict[str, Any], context: "Context"
    ) -> CallToolResult | InputRequiredResult:
        found = await self._find_tool(name)
        if found is None:
            raise NotFoundError(f"Unknown tool: {name}")
        return await found[1].run(arguments, await self._context_for(found[0], context))

    async def _read(self, uri: str, context: "Context") -> ReadResourceResult | InputRequiredResult:
        found = await self._find_resource(uri)
        if found is None:
            raise NotFoundError(f"Unknown resource: {uri}")
        return await found[1].contents(uri, await self._context_for(found[0], context))

    async def _render(
        self, name: str, arguments: Mapping[str, Any] | None, context: "Context"
    ) -> GetPromptResult | InputRequiredResult:
        found = await self._find_prompt(name)
        if found is None:
            raise NotFoundError(f"Unknown prompt: {name}")
        return await found[1].result(arguments, await self._context_for(found[0], context))

    async def _context_for(self, server: "Catalogue", context: "Context") -> "Context":
        if server is self:
            return context
        inner = context.of(server)  # type: ignore[arg-type] # every catalogue is a FastMCP
        await inner._ready()
        return inner

    async def _complete(
        self,
        reference: Reference,
        argument: CompletionArgument,
        known: CompletionContext | None,
        context: "Context",
    ) -> Completion:
        if isinstance(reference, PromptReference):
            key, what = reference.name, "prompt"
            owner: Any = self._prompts.get(key)
            mounts = self._mounts.for_prompt(key)
        else:
            key, what = reference.uri, "resource template"
            owner = self._templates.get(key) or self._resources.get(key)
            mounts = self._mounts.for_resource(key)
        if owner is not None:
            return await complete(self._completer, getattr(owner, "function", None), reference, argument, known)
        for mount, rest in mounts:
            inner = PromptReference(name=rest) if what == "prompt" else ResourceTemplateReference(uri=rest)
            try:
                return await mount.server._complete(inner, argument, known, context)
            except NotFoundError:
                continue
        raise NotFoundError(f"Unknown {what}: {key}")

    def _can_complete(self) -> bool:
        if self._completer is not None:
            return True
        functions = [getattr(item, "function", None) for item in (*self._prompts, *self._templates)]
        return any(map(completes, functions)) or any(mount.server._can_complete() for mount in self._mounts)

    # Mounts and changes -------------------------------------------------------------------------------------------

    def _mount(self, mount: Mount) -> None:
        if mount.server is self or self in mount.server._reachable():
            raise ValueError(f"{mount.server!r} cannot be mounted in {self!r}: the server would contain itself")
        replaced = self._mounts.add(mount)
        if replaced is not None:
            self._forget(replaced)
        mount.server._parents.add(self)
        self._all_changed()

    def _unmount(self, prefix: str) -> None:
        self._forget(self._mounts.remove(prefix))
        self._all_changed()

    def _forget(self, mount: Mount) -> None:
        self._listings.forget(mount)
        if not any(other.server is mount.server for other in self._mounts):
            mount.server._parents.discard(self)

    def _mounted_servers(self) -> "list[FastMCP[Any]]":
        return [mount.server for mount in self._mounts]

    def _reachable(self) -> "set[Catalogue]":
        found: set[Catalogue] = set()
        for server in self._mounted_servers():
            found |= {server} | server._reachable()
        return found

    def _all_changed(self) -> None:
        for event in (ToolsListChanged(), ResourcesListChanged(), PromptsListChanged()):
            self._emit(event)

    async def _followed(self, uri: str) -> None:
        """A client wants to hear of changes of a resource: whoever has to ask for them elsewhere does so."""
        for mount, rest in self._mounts.for_resource(uri):
            await mount.server._followed(rest)

    def _emit(self, event: ServerEvent) -> None:
        """Tell of a change: this server's clients, and the servers that it is mounted in."""
        for run in list(self._runs):
            run.changed(event)
        for parent in list(self._parents):
            parent._relay(self, event)

    def _relay(self, child: "Catalogue", event: ServerEvent) -> None:
        for mount in self._mounts:
            if mount.server is child:
                self._listings.forget(mount)
                self._emit(mount.outward(event))

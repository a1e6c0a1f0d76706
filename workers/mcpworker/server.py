"""`FastMCP`: the server that tools, resources and prompts are put into."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic

from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp_types import Annotations, Icon, ToolAnnotations
from typing_extensions import TypeVar

from mcpworker.catalogue import Catalogue
from mcpworker.completion import Completer
from mcpworker.components.prompts import Prompt
from mcpworker.components.resources import FunctionResource, Resource
from mcpworker.components.template import ResourceTemplate, template_parameters
from mcpworker.components.tools import Tool
from mcpworker.compose import Mount
from mcpworker.context import Context, current_context
from mcpworker.errors import NotFoundError
from mcpworker.logs import configure_logging
from mcpworker.protocol import LowLevelServer
from mcpworker.registry import Registry
from mcpworker.serving import Serving
from mcpworker.settings import ServerSettings

if TYPE_CHECKING:
    from mcpworker.proxy import FastMCPProxy

__all__ = ["FastMCP"]

LifespanT = TypeVar("LifespanT", default=Any)
_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])
_Lifespan = Callable[["FastMCP[LifespanT]"], AbstractAsyncContextManager[LifespanT]]


@asynccontextmanager
async def _no_lifespan(_: Any) -> Any:
    yield {}


class FastMCP(Catalogue, Serving, Generic[LifespanT]):
    """A server: it holds tools, resources, templates and prompts, and serves them by `run`.

    Keywords that are none of the parameters are settings (`ServerSettings`), which also come from the environment
    (`FASTMCP_SERVER_…`) and from `.env`; unknown ones are ignored.

    Raises:
        pydantic.ValidationError: a setting has a value that it cannot have.
    """

    def __init__(
        self,
        name: str | None = None,
        instructions: str | None = None,
        lifespan: _Lifespan[LifespanT] | None = None,
        tags: Iterable[str] | None = None,
        *,
        version: str = "",
        title: str | None = None,
        website_url: str | None = None,
        icons: list[Icon] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = ServerSettings(**settings)
        configure_logging(self.settings.log_level)
        self.tags: set[str] = set(tags or ())
        self.dependencies = self.settings.dependencies
        self._lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] = lifespan or _no_lifespan
        super().__init__(
            tools=Registry("Tool", self.settings.on_duplicate_tools),
            resources=Registry("Resource", self.settings.on_duplicate_resources),
            templates=Registry("Template", self.settings.on_duplicate_resources),
            prompts=Registry("Prompt", self.settings.on_duplicate_prompts),
            listing_seconds=self.settings.cache_expiration_seconds,
        )
        self._mcp_server = LowLevelServer(
            self,
            name or "FastMCP",
            version=version,
            title=title,
            instructions=instructions,
            website_url=website_url,
            icons=icons,
        )

    @property
    def name(self) -> str:
        """What the server calls itself."""
        return self._mcp_server.name

    @property
    def instructions(self) -> str | None:
        """What clients are told about using the server."""
        return self._mcp_server.instructions

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def get_context(self) -> Context:
        """The context of the request that is being served; outside of one its members raise ValueError."""
        context = current_context.get()
        return context.of(self) if context is not None else Context(self)

    def _open_lifespan(self) -> AbstractAsyncContextManager[Any]:
        return self._lifespan(self)

    # Tools --------------------------------------------------------------------------------------------------------

    def tool(
        self,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        *,
        title: str | None = None,
        annotations: ToolAnnotations | dict[str, Any] | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
        structured_output: bool | None = None,
    ) -> Callable[[_FunctionT], _FunctionT]:
        """Decorator: the function becomes a tool and stays what it is.

        An annotated return type is published as the output schema and checked; `structured_output=False` does
        neither.

        Raises:
            TypeError: used without parentheses.
            InvalidSignature: the parameters cannot be described to a client.
            ValueError: the name is taken, and duplicates are errors.
        """
        if callable(name):
            raise TypeError(_used_without_call("tool", "@tool()"))

        def decorate(fn: _FunctionT) -> _FunctionT:
            self.add_tool(
                fn,
                name,
                description,
                tags,
                title=title,
                annotations=annotations,
                icons=icons,
                meta=meta,
                structured_output=structured_output,
            )
            return fn

        return decorate

    def add_tool(
        self,
        fn: Callable[..., Any] | Tool,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        **described: Any,
    ) -> None:
        """Add a function, or a tool made elsewhere; keywords as of `tool`. Clients hear of it if the server runs."""
        tool = fn if isinstance(fn, Tool) else Tool.from_function(fn, name, description, tags, **described)
        if self._tools.add(name or tool.name, tool):
            self._emit(ToolsListChanged())

    def remove_tool(self, name: str) -> None:
        """Remove a tool of this server.

        Raises:
            NotFoundError: it has no such tool.
        """
        _remove(self._tools, name, "tool")
        self._emit(ToolsListChanged())

    # Resources ----------------------------------------------------------------------------------------------------

    def resource(
        self,
        uri: str,
        *,
        name: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        tags: Iterable[str] | None = None,
        title: str | None = None,
        icons: list[Icon] | None = None,
        annotations: Annotations | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Callable[[_FunctionT], _FunctionT]:
        """Decorator: the function makes the content of a resource; with parameters, of a family of them.

        Raises:
            TypeError: used without a URI.
            ValueError: the parameters of URI and function do not fit, or the URI is taken and duplicates are errors.
        """
        if callable(uri):
            raise TypeError(_used_without_call("resource", "@resource('uri')"))

        def decorate(fn: _FunctionT) -> _FunctionT:
            self.add_resource_fn(
                fn,
                uri,
                name,
                description,
                mime_type,
                tags,
                title=title,
                icons=icons,
                annotations=annotations,
                meta=meta,
            )
            return fn

        return decorate

    def add_resource_fn(
        self,
        fn: Callable[..., Any],
        uri: str,
        name: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        tags: Iterable[str] | None = None,
        **described: Any,
    ) -> None:
        """Add a function as a resource, or as a template if URI or function have parameters."""
        described.update(description=description, mime_type=mime_type or "text/plain", tags=tags)
        resource: FunctionResource | None = None
        if not template_parameters(uri):
            resource = FunctionResource(uri, name, fn=fn, **described)
        if resource is None or resource.function.parameters:
            self.add_template(ResourceTemplate(uri, fn=fn, name=name, **described))
        else:
            self.add_resource(resource)

    def add_resource(self, resource: Resource, key: str | None = None) -> None:
        """Add a resource, listed and served under `key` if one is given, else under its URI."""
        if self._resources.add(key or resource.uri, resource):
            self._emit(ResourcesListChanged())

    def add_template(self, template: ResourceTemplate, key: str | None = None) -> None:
        """Add a template, listed under `key` if one is given."""
        if self._templates.add(key or template.uri_template, template):
            self._emit(ResourcesListChanged())

    def remove_resource(self, uri: str) -> None:
        """Remove a resource or template of this server.

        Raises:
            NotFoundError: it has none under this URI.
        """
        _remove(self._templates if uri in self._templates else self._resources, uri, "resource")
        self._emit(ResourcesListChanged())

    def notify_resource_updated(self, uri: str) -> None:
        """Tell the clients that subscribed to a resource that it changed; from any thread, without waiting."""
        self._emit(ResourceUpdated(str(uri)))

    # Prompts ------------------------------------------------------------------------------------------------------

    def prompt(
        self,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        *,
        title: str | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Callable[[_FunctionT], _FunctionT]:
        """Decorator: the function renders a prompt and stays what it is.

        Raises:
            TypeError: used without parentheses.
            ValueError: the name is taken, and duplicates are errors.
        """
        if callable(name):
            raise TypeError(_used_without_call("prompt", "@prompt()"))

        def decorate(fn: _FunctionT) -> _FunctionT:
            self.add_prompt(fn, name, description, tags, title=title, icons=icons, meta=meta)
            return fn

        return decorate

    def add_prompt(
        self,
        fn: Callable[..., Any] | Prompt,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        **described: Any,
    ) -> None:
        """Add a function, or a prompt made elsewhere. Clients hear of it if the server runs."""
        prompt = fn if isinstance(fn, Prompt) else Prompt.from_function(fn, name, description, tags, **described)
        if self._prompts.add(name or prompt.name, prompt):
            self._emit(PromptsListChanged())

    def remove_prompt(self, name: str) -> None:
        """Remove a prompt of this server.

        Raises:
            NotFoundError: it has no such prompt.
        """
        _remove(self._prompts, name, "prompt")
        self._emit(PromptsListChanged())

    def completion(self) -> Callable[[Completer], Completer]:
        """Decorator: the function completes arguments of prompts and of templates.

        It gets the reference, the argument and the arguments that are known already, as `mcp_types` has them, and
        returns a list of strings, a `Completion`, or None where it knows nothing.
        """

        def decorate(fn: Completer) -> Completer:
            self._completer = fn
            return fn

        return decorate

    # Composition --------------------------------------------------------------------------------------------------

    def mount(
        self,
        prefix: str,
        server: "FastMCP[Any]",
        tool_separator: str | None = None,
        resource_separator: str | None = None,
        prompt_separator: str | None = None,
        *,
        as_proxy: bool = False,
    ) -> None:
        """Show everything of another server here, live: `prefix_tool`, `prefix+uri`, `prefix_prompt`.

        Its lifespan is entered with this server's. A mount with the same prefix is replaced.

        Raises:
            ValueError: the prefix makes no valid URI, or the server would contain itself.
        """
        if as_proxy:
            from mcpworker.client import Client

            server = FastMCP.from_client(Client(server), name=server.name)
        self._mount(_mount_of(prefix, server, tool_separator, resource_separator, prompt_separator))

    def unmount(self, prefix: str) -> None:
        """Show a mounted server no more.

        Raises:
            KeyError: nothing is mounted under this prefix.
        """
        self._unmount(prefix)

    async def import_server(
        self,
        prefix: str,
        server: "FastMCP[Any]",
        tool_separator: str | None = None,
        resource_separator: str | None = None,
        prompt_separator: str | None = None,
    ) -> None:
        """Copy what another server has now, under the names that mounting it would give; later changes do not follow.

        Its lifespan, settings and instructions are not copied; a copied function's context is this server's.

        Raises:
            ValueError: the prefix makes no valid URI, or a name is taken and duplicates are errors.
        """
        names = _mount_of(prefix, server, tool_separator, resource_separator, prompt_separator)
        for key, tool in (await server.get_tools()).items():
            self.add_tool(tool, names.tool_prefix + key)
        for uri, resource in (await server.get_resources()).items():
            self.add_resource(resource, names.resource_prefix + uri)
        for uri, template in (await server.get_resource_templates()).items():
            self.add_template(template.under(names.resource_prefix + uri), names.resource_prefix + uri)
        for key, prompt in (await server.get_prompts()).items():
            self.add_prompt(prompt, names.prompt_prefix + key)

    @classmethod
    def from_client(cls, client: Any, **settings: Any) -> "FastMCPProxy":
        """A server that hands everything on to the server that a client is for; keywords as of the constructor."""
        from mcpworker.proxy import FastMCPProxy

        return FastMCPProxy(client=client, **settings)


def _mount_of(prefix: str, server: FastMCP[Any], tool: str | None, resource: str | None, prompt: str | None) -> Mount:
    return Mount(
        prefix,
        server,
        "_" if tool is None else tool,
        "+" if resource is None else resource,
        "_" if prompt is None else prompt,
    )


def _remove(registry: Registry[Any], key: str, kind: str) -> None:
    try:
        registry.remove(key)
    except KeyError:
        raise NotFoundError(f"Unknown {kind}: {key}") from None


def _used_without_call(name: str, call: str) -> str:
    return f"The @{name} decorator was used incorrectly. Did you forget to call it? Use {call} instead of @{name}"

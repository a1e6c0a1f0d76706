"""Components of a proxy: they are described as the backend describes them, and run there."""

import base64
import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mcp_types as types

from mcpworker.components.prompts import Prompt
from mcpworker.components.resources import Resource
from mcpworker.components.template import Matcher, ResourceTemplate
from mcpworker.components.tools import Tool
from mcpworker.context import Context
from mcpworker.errors import ResourceError

if TYPE_CHECKING:
    from mcpworker.proxy import FastMCPProxy

__all__ = ["ProxyPrompt", "ProxyResource", "ProxyTemplate", "ProxyTool"]


class ProxyTool(Tool):
    """A tool of a proxy's backend."""

    def __init__(self, proxy: "FastMCPProxy", tool: types.Tool) -> None:
        super().__init__(
            tool.name,
            parameters=tool.input_schema,
            output_schema=tool.output_schema,
            annotations=tool.annotations,
            title=tool.title,
            description=tool.description,
            icons=tool.icons,
            meta=tool.meta,
        )
        self._proxy = proxy
        self._tool = tool

    async def run(self, arguments: dict[str, Any], context: Context | None = None) -> types.CallToolResult:
        """Have the backend run it. Its errors come back as they are.

        Raises:
            MCPError: the backend answered with a protocol error.
        """
        return await self._proxy._forward_tool(self._tool.name, arguments, context)

    def to_mcp_tool(self, name: str | None = None) -> types.Tool:
        """The tool as the backend describes it, under another name if one is given."""
        return self._tool.model_copy(update={"name": name}) if name and name != self._tool.name else self._tool


class ProxyResource(Resource):
    """A resource of a proxy's backend."""

    def __init__(self, proxy: "FastMCPProxy", resource: types.Resource) -> None:
        # Not Resource.__init__: what a backend calls a MIME type is its business.
        super(Resource, self).__init__(
            resource.name,
            title=resource.title,
            description=resource.description,
            icons=resource.icons,
            meta=resource.meta,
        )
        self.uri = str(resource.uri)
        self.mime_type = resource.mime_type or "text/plain"
        self.annotations = resource.annotations
        self.size = resource.size
        self._proxy = proxy
        self._resource = resource

    async def read(self) -> str | bytes:
        """The content; blobs are decoded.

        Raises:
            ResourceError: the backend's answer has not exactly one content.
        """
        contents = (await self._proxy._forward_read(self.uri, None)).contents
        if len(contents) != 1:
            raise ResourceError(f"resource {self.uri} has {len(contents)} contents; read it through a client")
        [item] = contents
        return item.text if isinstance(item, types.TextResourceContents) else base64.b64decode(item.blob)

    async def contents(self, uri: str, context: Context | None = None) -> types.ReadResourceResult:
        """The backend's answer, under the URI that the client asked for."""
        return _renamed(await self._proxy._forward_read(self.uri, context), self.uri, uri)

    def to_mcp_resource(self, uri: str | None = None) -> types.Resource:
        """The resource as the backend describes it, under another URI if one is given."""
        return self._resource.model_copy(update={"uri": uri}) if uri and uri != self.uri else self._resource


class ProxyTemplate(ResourceTemplate):
    """A template of a proxy's backend."""

    def __init__(self, proxy: "FastMCPProxy", template: types.ResourceTemplate) -> None:
        # Not ResourceTemplate.__init__, which wants the function.
        super(ResourceTemplate, self).__init__(
            template.name,
            title=template.title,
            description=template.description,
            icons=template.icons,
            meta=template.meta,
        )
        self.uri_template = template.uri_template
        self.mime_type = template.mime_type or "text/plain"
        self.annotations = template.annotations
        self._proxy = proxy
        self._template = template
        self._prefix = ""
        self._known = _matcher(template.uri_template)

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the parameters, of which nothing but the names is known."""
        names = self._known.names if self._known is not None else []
        return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}

    def matches(self, uri: str) -> dict[str, Any] | None:
        """The parameters of a URI that belongs to this template, else None."""
        return None if self._known is None else self._known.match(uri)

    def under(self, uri_template: str) -> ResourceTemplate:
        """The same template under a prefix.

        Raises:
            ValueError: the new template does not end with the old one.
        """
        if not uri_template.endswith(self.uri_template):
            raise ValueError(f"{uri_template} does not end with {self.uri_template}, which the backend knows")
        copied = copy.copy(self)
        copied._prefix = uri_template[: -len(self.uri_template)] + self._prefix
        copied.uri_template = uri_template
        copied._known = _matcher(uri_template)
        return copied

    async def contents(
        self, uri: str, parameters: Mapping[str, Any], context: Context | None = None
    ) -> types.ReadResourceResult:
        """The backend's answer, under the URI that the client asked for."""
        inner = uri.removeprefix(self._prefix)
        return _renamed(await self._proxy._forward_read(inner, context), inner, uri)

    def to_mcp_template(self, uri_template: str | None = None) -> types.ResourceTemplate:
        """The template as the backend describes it, under another URI if one is given."""
        return self._template.model_copy(update={"uri_template": uri_template or self.uri_template})


def _matcher(uri_template: str) -> Matcher | None:
    """A template of which this framework cannot make sense matches nothing; the backend may know better."""
    try:
        return Matcher(uri_template)
    except ValueError:
        return None


def _renamed(result: types.ReadResourceResult, inner: str, outer: str) -> types.ReadResourceResult:
    """Put the URI that the client asked for in the place of the backend's."""
    if inner == outer:
        return result
    contents = [item.model_copy(update={"uri": outer}) if str(item.uri) == inner else item for item in result.contents]
    return result.model_copy(update={"contents": contents})


class ProxyPrompt(Prompt):
    """A prompt of a proxy's backend."""

    def __init__(self, proxy: "FastMCPProxy", prompt: types.Prompt) -> None:
        super().__init__(
            prompt.name,
            arguments=prompt.arguments or [],
            title=prompt.title,
            description=prompt.description,
            icons=prompt.icons,
            meta=prompt.meta,
        )
        self._proxy = proxy
        self._prompt = prompt

    async def result(
        self, arguments: Mapping[str, Any] | None, context: Context | None = None
    ) -> types.GetPromptResult:
        """The prompt as the backend renders it."""
        return await self._proxy._forward_prompt(self._prompt.name, arguments, context)

    def to_mcp_prompt(self, name: str | None = None) -> types.Prompt:
        """The prompt as the backend describes it, under another name if one is given."""
        return self._prompt.model_copy(update={"name": name}) if name and name != self._prompt.name else self._prompt

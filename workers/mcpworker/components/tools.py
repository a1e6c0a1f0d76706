"""Tools: functions that a client calls with arguments."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import mcp_types
from mcp import MCPError
from mcp_types import CallToolResult, Icon, InputRequiredResult, ToolAnnotations
from pydantic import ValidationError

from mcpworker.components.base import Described, error_text
from mcpworker.errors import FastMCPError, Overloaded, ToolError
from mcpworker.logs import get_logger
from mcpworker.results import StructuredOutput, error_result, to_content
from mcpworker.signature import Function, docstring

if TYPE_CHECKING:
    from mcpworker.context import Context

__all__ = ["Tool"]

logger = get_logger("tools")


class Tool(Described):
    """A tool: its schema for clients, and how it runs.

    Subclasses may bring their own `run`; `parameters` and `output_schema` are JSON Schemas.
    """

    def __init__(
        self,
        name: str,
        *,
        parameters: dict[str, Any],
        output_schema: dict[str, Any] | None = None,
        annotations: ToolAnnotations | None = None,
        title: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, title=title, description=description, tags=tags, icons=icons, meta=meta)
        self.parameters = parameters
        self.output_schema = output_schema
        self.annotations = annotations

    @staticmethod
    def from_function(
        fn: Callable[..., Any],
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        *,
        title: str | None = None,
        annotations: ToolAnnotations | dict[str, Any] | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
        structured_output: bool | None = None,
    ) -> "FunctionTool":
        """A tool that calls `fn`.

        Raises:
            ValueError: a lambda without a name.
            InvalidSignature: the parameters cannot be described to a client.
        """
        return FunctionTool(
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

    async def run(
        self, arguments: dict[str, Any], context: "Context | None" = None
    ) -> CallToolResult | InputRequiredResult:
        """Run the tool; what goes wrong inside it is a result with `is_error`, not an exception.

        Raises:
            MCPError: raised by the tool itself, to be sent as a protocol error.
        """
        raise NotImplementedError

    def to_mcp_tool(self, name: str | None = None) -> mcp_types.Tool:
        """The tool as a listing shows it, under another name if one is given."""
        return mcp_types.Tool(
            name=name or self.name,
            title=self.title,
            description=self.description,
            input_schema=self.parameters,
            output_schema=self.output_schema,
            annotations=self.annotations,
            icons=self.icons,
            _meta=self.meta,
        )


class FunctionTool(Tool):
    """A tool that is a Python function."""

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None,
        description: str | None,
        tags: Iterable[str] | None,
        *,
        title: str | None,
        annotations: ToolAnnotations | dict[str, Any] | None,
        icons: list[Icon] | None,
        meta: dict[str, Any] | None,
        structured_output: bool | None,
    ) -> None:
        if name is None and getattr(fn, "__name__", "") == "<lambda>":
            raise ValueError("You must provide a name for lambda functions")
        self.function = Function(fn, what="Tool", name=name, structured=_structured(fn, structured_output))
        metadata = self.function.metadata
        self._structured = StructuredOutput(metadata) if metadata.output_schema is not None else None
        super().__init__(
            self.function.name,
            parameters=self.function.schema,
            output_schema=self._structured.schema if self._structured else None,
            annotations=ToolAnnotations(**annotations) if isinstance(annotations, dict) else annotations,
            title=title,
            description=description if description is not None else (docstring(fn)),
            tags=tags,
            icons=icons,
            meta=meta,
        )

    @property
    def fn(self) -> Callable[..., Any]:
        """The function itself."""
        return self.function.fn

    async def run(
        self, arguments: dict[str, Any], context: "Context | None" = None
    ) -> CallToolResult | InputRequiredResult:
        try:
            value = await self.function.call(self.function.bind(arguments), context)
            return self._result(value)
        except MCPError:
            raise
        except (FastMCPError, Overloaded, ValidationError) as error:
            logger.info("tool %r failed: %r", self.name, str(error))
            return error_result(f"Error executing tool {self.name}: {error_text(error)}")
        except Exception as error:
            logger.exception("tool %r raised an exception", self.name)
            return error_result(f"Error executing tool {self.name}: {error_text(error)}")

    def _result(self, value: Any) -> CallToolResult | InputRequiredResult:
        if isinstance(value, CallToolResult | InputRequiredResult):
            return value
        content = to_content(value)
        if self._structured is None:
            return CallToolResult(content=content)
        try:
            return CallToolResult(content=content, structured_content=self._structured.of(value))
        except ValidationError as error:
            raise ToolError(f"the result is not what the return annotation promises: {error}") from error


def _structured(fn: Callable[..., Any], wanted: bool | None) -> bool | None:
    """Bytes have no JSON form that is sure to exist, so they are never structured unless that is asked for."""
    returns = getattr(fn, "__annotations__", {}).get("return")
    return False if wanted is None and returns in (bytes, "bytes", None, "None") else wanted

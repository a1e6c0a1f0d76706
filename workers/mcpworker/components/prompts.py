"""Prompts: message templates that a client fills with arguments."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import mcp_types
from mcp_types import (
    ContentBlock,
    GetPromptResult,
    Icon,
    InputRequiredResult,
    PromptArgument,
    PromptMessage,
    TextContent,
)
from pydantic import TypeAdapter

from mcpworker.components.base import Described
from mcpworker.errors import PromptError
from mcpworker.results import json_text, to_content
from mcpworker.signature import Function, docstring

if TYPE_CHECKING:
    from mcpworker.context import Context

__all__ = ["AssistantMessage", "Message", "Prompt", "UserMessage"]


def Message(content: Any, role: str = "user") -> PromptMessage:  # noqa: N802 - the name is part of the API
    """A prompt message of text, a content block, an image or anything that has a JSON form."""
    return PromptMessage(role=role, content=_one_block(content))  # type: ignore[arg-type] # pydantic checks it


def UserMessage(content: Any) -> PromptMessage:  # noqa: N802 - the name is part of the API
    """A message in the user's words."""
    return Message(content, "user")


def AssistantMessage(content: Any) -> PromptMessage:  # noqa: N802 - the name is part of the API
    """A message in the assistant's words."""
    return Message(content, "assistant")


_ONE_BLOCK: TypeAdapter[ContentBlock] = TypeAdapter(ContentBlock)


def _one_block(content: Any) -> ContentBlock:
    if isinstance(content, Mapping) and "type" in content:
        return _ONE_BLOCK.validate_python(content)
    blocks = to_content(content)
    return blocks[0] if len(blocks) == 1 else TextContent(type="text", text=json_text(content))


class Prompt(Described):
    """A prompt: the arguments that clients are told of, and how it renders.

    Subclasses may bring their own `result`.
    """

    def __init__(
        self,
        name: str,
        *,
        arguments: list[PromptArgument],
        title: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, title=title, description=description, tags=tags, icons=icons, meta=meta)
        self.arguments = arguments

    @staticmethod
    def from_function(
        fn: Callable[..., Any],
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        *,
        title: str | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> "FunctionPrompt":
        """A prompt that is rendered by `fn`.

        Raises:
            ValueError: a lambda without a name.
            InvalidSignature: the parameters cannot be described to a client.
        """
        return FunctionPrompt(fn, name, description, tags, title=title, icons=icons, meta=meta)

    async def result(
        self, arguments: Mapping[str, Any] | None, context: "Context | None" = None
    ) -> GetPromptResult | InputRequiredResult:
        """The rendered prompt."""
        raise NotImplementedError

    async def render(
        self, arguments: Mapping[str, Any] | None = None, context: "Context | None" = None
    ) -> list[PromptMessage]:
        """The messages of the rendered prompt.

        Raises:
            PromptError: the prompt asks the client for input instead.
        """
        result = await self.result(arguments, context)
        if isinstance(result, InputRequiredResult):
            raise PromptError(f"prompt {self.name} asks for input; read it through a client")
        return result.messages

    def to_mcp_prompt(self, name: str | None = None) -> mcp_types.Prompt:
        """The prompt as a listing shows it, under another name if one is given."""
        return mcp_types.Prompt(
            name=name or self.name,
            title=self.title,
            description=self.description,
            arguments=self.arguments,
            icons=self.icons,
            _meta=self.meta,
        )


class FunctionPrompt(Prompt):
    """A prompt that is a Python function."""

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None,
        description: str | None,
        tags: Iterable[str] | None,
        *,
        title: str | None,
        icons: list[Icon] | None,
        meta: dict[str, Any] | None,
    ) -> None:
        if name is None and getattr(fn, "__name__", "") == "<lambda>":
            raise ValueError("You must provide a name for lambda functions")
        self.function = Function(fn, what="Prompt", name=name)
        super().__init__(
            self.function.name,
            arguments=self._describe_arguments(),
            title=title,
            description=description if description is not None else docstring(fn),
            tags=tags,
            icons=icons,
            meta=meta,
        )

    @property
    def fn(self) -> Callable[..., Any]:
        """The function itself."""
        return self.function.fn

    def _describe_arguments(self) -> list[PromptArgument]:
        schema = self.function.schema
        required = set(schema.get("required", ()))
        return [
            PromptArgument(name=name, description=value.get("description"), required=name in required)
            for name, value in schema.get("properties", {}).items()
        ]

    async def result(
        self, arguments: Mapping[str, Any] | None, context: "Context | None" = None
    ) -> GetPromptResult | InputRequiredResult:
        """The rendered prompt.

        Raises:
            PromptError: a required argument is missing.
            pydantic.ValidationError: an argument cannot be coerced.
        """
        given = dict(arguments or {})
        missing = {argument.name for argument in self.arguments if argument.required} - set(given)
        if missing:
            raise PromptError(f"Missing required arguments: {missing}")
        value = await self.function.call(self.function.bind(given, decode_all=True), context)
        if isinstance(value, GetPromptResult | InputRequiredResult):
            return value
        items = value if isinstance(value, list | tuple) else [value]
        return GetPromptResult(description=self.description or None, messages=[_message(item) for item in items])


def _message(item: Any) -> PromptMessage:
    if isinstance(item, PromptMessage):
        return item
    if isinstance(item, Mapping) and "role" in item and "content" in item:
        return Message(item["content"], item["role"])
    return UserMessage(item)

"""What a function returns, as protocol content: text, media and embedded resources, and structured output."""

import json
import math
import re
from typing import Any

import pydantic_core
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from mcpworker.errors import ToolError
from mcpworker.media import Audio, File, Image

__all__ = ["StructuredOutput", "clean", "error_result", "json_text", "to_content", "wire_text"]

_BLOCKS = (TextContent, ImageContent, AudioContent, EmbeddedResource, ResourceLink)
_MEDIA = (Image, Audio, File)
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_content(value: Any) -> list[ContentBlock]:
    """Content blocks of a tool's result.

    None gives nothing, a string its text, anything else its JSON. Of a list or tuple the items that are no content
    come first, as one JSON text; images, sounds, files and content blocks follow, each a block.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [TextContent(type="text", text=wire_text(value))]
    if isinstance(value, _BLOCKS):
        return [value]
    if isinstance(value, _MEDIA):
        return [_media(value)]
    if isinstance(value, list | tuple):
        blocks = [item if isinstance(item, _BLOCKS) else _media(item) for item in value if _is_content(item)]
        rest = [item for item in value if not _is_content(item)]
        return [TextContent(type="text", text=json_text(rest)), *blocks] if rest else blocks
    return [TextContent(type="text", text=json_text(value))]


def _is_content(item: Any) -> bool:
    return isinstance(item, (*_BLOCKS, *_MEDIA))


def _media(value: Any) -> ContentBlock:
    if isinstance(value, Image):
        return value.to_image_content()
    if isinstance(value, Audio):
        return value.to_audio_content()
    assert isinstance(value, File)
    return value.to_resource_content()


def json_text(value: Any) -> str:
    """A value as one line of JSON; what JSON cannot say becomes its `str()`."""
    try:
        plain = pydantic_core.to_jsonable_python(value, fallback=str)
    except (ValueError, TypeError):
        # pydantic refuses, among others, bytes that are not UTF-8.
        return wire_text(str(value))
    return wire_text(json.dumps(plain, ensure_ascii=False))


def wire_text(text: str) -> str:
    """A text that UTF-8 can carry: file names that are no UTF-8, and emoji cut in two, hold what it cannot."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _SURROGATE.sub("\ufffd", text)
    return text


def clean(value: Any) -> Any:
    """A JSON value all of whose texts UTF-8 can carry."""
    if isinstance(value, str):
        return wire_text(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {wire_text(key): clean(item) for key, item in value.items()}
    return value


class StructuredOutput:
    """The published output schema of a tool, and how its results are made to fit."""

    def __init__(self, metadata: FuncMetadata) -> None:
        assert metadata.output_schema is not None
        self.schema: dict[str, Any] = metadata.output_schema
        self._wraps = metadata.wrap_output
        # The SDK's adapter also reads the standard library's TypedDict on Python 3.11, which pydantic refuses.
        self._adapter = metadata._output_adapter(metadata.output_model)
        properties = self.schema.get("properties", {})
        result = properties.get("result", {}) if self._wraps else {}
        self._plain_type = {"string": str, "integer": int, "number": float, "boolean": bool}.get(result.get("type", ""))
        if set(result) - {"type", "title"}:
            self._plain_type = None  # the schema constrains the value: let pydantic look

    def of(self, value: Any) -> Any:
        """The JSON value that stands for a result.

        Raises:
            pydantic.ValidationError: the result is not what the annotation promises.
            ToolError: it is a number that JSON does not have.
        """
        if self._plain_type is not None and type(value) is self._plain_type:
            if isinstance(value, float) and not math.isfinite(value):
                raise ToolError(f"the result is {value}, which JSON has no number for")
            return {"result": wire_text(value) if isinstance(value, str) else value}
        wrapped = {"result": value} if self._wraps else value
        validated = self._adapter.validate_python(wrapped, by_alias=True, by_name=True)
        if hasattr(validated, "model_dump"):
            # Through the instance, so that a returned subclass keeps its own fields.
            return clean(validated.model_dump(mode="json", by_alias=True))
        return clean(self._adapter.dump_python(validated, mode="json", by_alias=True))


def error_result(text: str) -> CallToolResult:
    """A tool result that tells the model what went wrong."""
    return CallToolResult(content=[TextContent(type="text", text=wire_text(text))], is_error=True)

"""What functions return, as content and as structured output."""

import dataclasses
import enum
import json
import typing
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import typing_extensions
from mcp_types import AudioContent, EmbeddedResource, ImageContent, TextContent
from pydantic import BaseModel, Field

from mcpworker import Audio, File, Image
from mcpworker.components.tools import Tool
from mcpworker.errors import ToolError
from mcpworker.results import json_text, to_content


class Model(BaseModel):
    a: int
    camel_case: str = Field(default="x", alias="camelCase")


@dataclasses.dataclass
class Data:
    a: int


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ("", ""),
        (3, "3"),
        (True, "true"),
        ({"a": 1}, '{"a": 1}'),
        ({"ä": "ö"}, '{"ä": "ö"}'),
        (Model(a=1), '{"a": 1, "camelCase": "x"}'),
        (Data(1), '{"a": 1}'),
        ([1, {"a": 2}], '[1, {"a": 2}]'),
        ((1, 2), "[1, 2]"),
        ({"when": datetime(2026, 1, 2, tzinfo=UTC)}, '{"when": "2026-01-02T00:00:00Z"}'),
        (Colour.RED, '"red"'),
        (b"ab", '"ab"'),
        (b"\xff\x00", "b'\\xff\\x00'"),
        ({"x": object}, '{"x": "<class \'object\'>"}'),
    ],
)
def test_value_is_one_text(value: Any, text: str) -> None:
    assert to_content(value) == [TextContent(type="text", text=text)]


@pytest.mark.parametrize("value", [None, [], ()])
def test_nothing_is_no_content(value: Any) -> None:
    assert to_content(value) == []


def test_content_blocks_stay_what_they_are() -> None:
    block = TextContent(type="text", text="x")

    assert to_content(block) == [block]
    assert to_content([block, "data"]) == [TextContent(type="text", text='["data"]'), block]


def test_media_become_their_blocks() -> None:
    image, audio, file = to_content([Image(data=b"i", format="jpeg"), Audio(data=b"a"), File(data=b"f", name="f.txt")])

    assert isinstance(image, ImageContent)
    assert image.mime_type == "image/jpeg"
    assert isinstance(audio, AudioContent)
    assert audio.mime_type == "audio/wav"
    assert isinstance(file, EmbeddedResource)


def test_json_text_never_raises() -> None:
    loop: list[Any] = []
    loop.append(loop)

    assert json_text(loop) == "[[...]]"


# Structured output ------------------------------------------------------------------------------------------------


class StandardDict(typing.TypedDict):
    a: int


class ExtendedDict(typing_extensions.TypedDict):
    a: int


class Named(NamedTuple):
    a: int


def tool_returning(annotation: Any, value: Any, **options: Any) -> Tool:
    def fn() -> Any:
        return value

    if annotation is not Any:
        fn.__annotations__["return"] = annotation
    return Tool.from_function(fn, **options)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("annotation", "value", "structured"),
    [
        (str, "x", {"result": "x"}),
        (int, 3, {"result": 3}),
        (float, 3, {"result": 3.0}),
        (bool, True, {"result": True}),
        (list[int], [1, 2], {"result": [1, 2]}),
        (list[Model], [Model(a=1)], {"result": [{"a": 1, "camelCase": "x"}]}),
        (int | None, None, {"result": None}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {1: "a"}, {"result": {"1": "a"}}),
        (Model, Model(a=1), {"a": 1, "camelCase": "x"}),
        (Model, {"a": "1"}, {"a": 1, "camelCase": "x"}),
        (Data, Data(1), {"a": 1}),
        (StandardDict, {"a": 1}, {"a": 1}),
        (ExtendedDict, {"a": 1}, {"a": 1}),
        (tuple[int, str], (1, "a"), {"result": [1, "a"]}),
        (typing.Literal["a", "b"], "b", {"result": "b"}),
    ],
)
async def test_annotated_return_is_structured_and_described(annotation: Any, value: Any, structured: Any) -> None:
    tool = tool_returning(annotation, value)

    result = await tool.run({})

    assert tool.output_schema is not None
    assert tool.output_schema["type"] == "object"
    assert result.structured_content == structured  # type: ignore[union-attr]
    json.dumps(tool.output_schema)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Any, {"a": 1}),
        (None, None),
        (bytes, b"\xff"),
        (Image, Image(data=b"x")),
        (list[Image], [Image(data=b"x")]),
        (list[str | Image], ["a", Image(data=b"x")]),
        (TextContent, TextContent(type="text", text="x")),
        (File | None, File(data=b"x")),
        (Colour, Colour.RED),
        (object, object()),
    ],
)
async def test_what_is_not_data_is_not_structured(annotation: Any, value: Any) -> None:
    tool = tool_returning(annotation, value)

    result = await tool.run({})

    assert tool.output_schema is None
    assert result.structured_content is None  # type: ignore[union-attr]
    assert not result.is_error, result.content  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_structured_output_can_be_declined() -> None:
    tool = tool_returning(str, 5, structured_output=False)

    result = await tool.run({})

    assert (tool.output_schema, result.structured_content) == (None, None)  # type: ignore[union-attr]
    assert not result.is_error  # type: ignore[union-attr]


@pytest.mark.anyio
@pytest.mark.parametrize(("annotation", "value"), [(str, {"a": 1}), (int, "many"), (Model, {}), (list[int], None)])
async def test_broken_promise_is_an_error_that_says_so(annotation: Any, value: Any) -> None:
    result = await tool_returning(annotation, value).run({})

    assert result.is_error  # type: ignore[union-attr]
    text = result.content[0].text  # type: ignore[union-attr]
    assert text.startswith("Error executing tool fn: the result is not what the return annotation promises: ")


@pytest.mark.anyio
async def test_number_that_json_lacks_is_an_error() -> None:
    result = await tool_returning(float, float("nan")).run({})

    text = result.content[0].text  # type: ignore[union-attr]
    assert text == "Error executing tool fn: the result is nan, which JSON has no number for"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("annotation", "value", "structured"),
    [
        (str, "a\udcff", {"result": "a\ufffd"}),
        (list[str], ["ü", "\ud83d"], {"result": ["ü", "\ufffd"]}),
        (dict[str, str], {"x": "\udcff"}, {"x": "\ufffd"}),
    ],
)
async def test_text_that_utf8_cannot_carry_is_mended(annotation: Any, value: Any, structured: Any) -> None:
    result = await tool_returning(annotation, value).run({})

    assert result.structured_content == structured  # type: ignore[union-attr]
    result.model_dump_json()


@pytest.mark.anyio
async def test_text_of_an_exception_is_mended_too() -> None:
    def fn() -> None:
        raise ToolError("no file \udcff")

    result = await Tool.from_function(fn).run({})

    assert result.content[0].text == "Error executing tool fn: no file \ufffd"  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_returned_subclass_keeps_its_own_fields() -> None:
    class More(Model):
        b: int = 2

    result = await tool_returning(Model, More(a=1)).run({})

    assert result.structured_content == {"a": 1, "camelCase": "x", "b": 2}  # type: ignore[union-attr]

"""From a signature to a schema, and from JSON to arguments."""

import functools
from typing import Annotated, Any, Optional

import pytest
from pydantic import BaseModel, Field, ValidationError

from mcpworker import Context
from mcpworker.errors import InvalidSignature
from mcpworker.signature import Function, docstring, function_name


class Point(BaseModel):
    x: int


def function(fn: Any, **options: Any) -> Function:
    return Function(fn, what="Tool", **options)


def test_values_are_coerced_and_defaults_filled_in() -> None:
    def fn(a: float, b: int = 2, c: str = "x") -> None: ...

    assert function(fn).bind({"a": "3"}) == {"a": 3.0, "b": 2, "c": "x"}


@pytest.mark.parametrize(
    ("annotation", "given", "bound"),
    [
        (list[int], "[1, 2]", [1, 2]),
        (Point, '{"x": 1}', Point(x=1)),
        (bool, "true", True),
        (int | None, "null", None),
        (str, '{"x": 1}', '{"x": 1}'),
        (Annotated[str, Field(min_length=1)], "[1]", "[1]"),
        (str | None, "null", None),
        (str | list[str], "[broken", "[broken"),
        (str | int, "12", "12"),
        (Any, "12", "12"),
        (Any, "[1]", [1]),
    ],
)
def test_text_is_read_as_json_where_something_else_is_wanted(annotation: Any, given: str, bound: Any) -> None:
    def fn(value: Any) -> None: ...

    fn.__annotations__["value"] = annotation

    assert function(fn).bind({"value": given}) == {"value": bound}


def test_prompts_read_numbers_as_well() -> None:
    def fn(value: float | None, text: str) -> None: ...

    assert function(fn).bind({"value": "1.5", "text": "1.5"}, decode_all=True) == {"value": 1.5, "text": "1.5"}


def test_text_that_only_looks_like_json_stays_text_where_it_fits() -> None:
    def fn(value: Annotated[str, Field()] | int) -> None: ...

    assert function(fn).bind({"value": "[]"}) == {"value": "[]"}


def test_json_too_deep_to_read_is_text() -> None:
    def fn(value: Any) -> None: ...

    deep = "[" * 100_000
    assert function(fn).bind({"value": deep}) == {"value": deep}


def test_wrong_and_missing_values_are_refused() -> None:
    def fn(a: int) -> None: ...

    for arguments in ({"a": "many"}, {}):
        with pytest.raises(ValidationError):
            function(fn).bind(arguments)


def test_caller_keeps_its_arguments() -> None:
    def fn(a: list[int]) -> None: ...

    arguments = {"a": "[1]"}
    function(fn).bind(arguments)

    assert arguments == {"a": "[1]"}


def test_parameters_may_be_called_like_methods_of_models() -> None:
    def fn(json: str, copy: int, model_dump: bool = False) -> None: ...

    made = function(fn)

    assert set(made.schema["properties"]) == {"json", "copy", "model_dump"}
    assert made.bind({"json": "x", "copy": 1}) == {"json": "x", "copy": 1, "model_dump": False}


def test_alias_is_for_clients_only() -> None:
    def fn(source: Annotated[str, Field(alias="from")]) -> None: ...

    made = function(fn)

    assert set(made.schema["properties"]) == {"from"}
    assert made.bind({"from": "here"}) == {"source": "here"}


def test_parameter_without_annotation_is_a_string_in_the_schema_and_handed_on_as_it_is() -> None:
    def fn(a) -> None:  # type: ignore[no-untyped-def]
        ...

    made = function(fn)

    assert made.schema["properties"]["a"]["type"] == "string"
    assert made.bind({"a": 5}) == {"a": 5}


@pytest.mark.parametrize(
    "annotation",
    [Context, Context | None, Optional[Context], Annotated[Context, "x"], "Context", "Context | None"],  # noqa: UP045
)
def test_context_is_found_under_every_spelling(annotation: Any) -> None:
    def fn(a: int, where: Any) -> None: ...

    fn.__annotations__["where"] = annotation
    made = function(fn)

    assert made.context_parameter == "where"
    assert set(made.schema["properties"]) == {"a"}


def test_bound_methods_partials_and_callable_objects_will_do() -> None:
    class Greeter:
        """Greets."""

        def greet(self, name: str) -> str:
            """Greet."""
            return name

        def __call__(self, name: str) -> str:
            return name

    assert function(Greeter().greet).bind({"name": "Ada"}) == {"name": "Ada"}
    assert function(Greeter()).bind({"name": "Ada"}) == {"name": "Ada"}
    assert function_name(Greeter()) == "Greeter"
    partial = functools.partial(Greeter().greet)
    assert function_name(partial) == "greet"
    assert docstring(partial) == "Greet."
    assert function(partial).name == "greet"


def test_underscore_names_are_refused() -> None:
    def fn(_x: int) -> None: ...

    with pytest.raises(InvalidSignature, match="Parameter _x of fn cannot start with '_'"):
        function(fn)


def test_arguments_without_a_name_are_refused() -> None:
    def star(*args: int) -> None: ...
    def stars(**options: int) -> None: ...
    def positional(a: int, /) -> None: ...

    for fn in (star, stars, positional):
        with pytest.raises(InvalidSignature, match="cannot be given by name; write each argument out"):
            function(fn)


def test_annotation_that_means_nothing_is_refused() -> None:
    def fn(a: "Nonsense") -> None:  # type: ignore[name-defined] # noqa: F821
        ...

    with pytest.raises(InvalidSignature, match="Tool 'fn': "):
        function(fn)


def test_annotation_without_a_schema_is_refused() -> None:
    class Opaque:
        pass

    def fn(a: Opaque) -> None: ...

    with pytest.raises(InvalidSignature, match="Tool 'fn': "):
        function(fn)


@pytest.mark.anyio
async def test_async_callables_are_awaited_and_sync_ones_run_in_threads() -> None:
    import threading

    class Asynchronous:
        async def __call__(self) -> str:
            return threading.current_thread().name

    def synchronous() -> str:
        return threading.current_thread().name

    async def inner() -> str:
        return "inner"

    def returns_awaitable() -> Any:
        return inner()

    assert await function(Asynchronous()).call({}, None) == "MainThread"
    assert (await function(synchronous).call({}, None)).startswith("mcpworker-")
    assert await function(functools.partial(inner)).call({}, None) == "inner"
    assert await function(returns_awaitable).call({}, None) == "inner"

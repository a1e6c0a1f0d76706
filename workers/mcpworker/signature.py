"""What a function's signature says: its argument schema, where its Context goes, and how JSON becomes its arguments."""

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from mcp.server.mcpserver.exceptions import InvalidSignature as SDKInvalidSignature
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata, func_metadata
from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from mcpworker.errors import InvalidSignature
from mcpworker.threads import run_in_thread

if TYPE_CHECKING:
    from mcpworker.context import Context

__all__ = ["Function", "docstring", "function_name"]


class Function:
    """A user's function, with what calling it by JSON arguments needs; `schema` is the JSON Schema of these.

    Raises:
        InvalidSignature: a parameter's name starts with an underscore, arguments cannot be named (`*args`,
            `**kwargs`), or an annotation cannot be evaluated or has no schema.
    """

    def __init__(
        self, fn: Callable[..., Any], *, what: str, name: str | None = None, structured: bool | None = False
    ) -> None:
        self.fn = fn
        self.name = name or function_name(fn)
        self.is_async = _is_async(fn)
        _check_parameters(fn, self.name, what)
        self.context_parameter = _context_parameter(fn)
        self.metadata = self._analyse(fn, what, structured)
        fields = self.metadata.arg_model.model_fields
        # A field has another name than its parameter only where that would hide a method of the model; the alias is
        # the parameter then. An alias that the author gave is for clients only.
        self._arguments = tuple(
            (key if key in self.parameters else field.alias or key, key) for key, field in fields.items()
        )
        # Only where the hint is not plain `str` may a string be JSON for something else.
        self._decodable = frozenset(
            field.alias or key for key, field in fields.items() if _strip(field.annotation) is not str
        )

    def _analyse(self, fn: Callable[..., Any], what: str, structured: bool | None) -> FuncMetadata:
        skip = (self.context_parameter,) if self.context_parameter else ()
        target = fn if hasattr(fn, "__name__") else _Named(fn, self.name)
        try:
            try:
                metadata = func_metadata(target, skip_names=skip, structured_output=structured)
            except PydanticUserError:
                if structured is not None:
                    raise
                # Nobody asked for structured output, so a return type without a schema is no reason to refuse.
                metadata = func_metadata(target, skip_names=skip, structured_output=False)
            self.schema: dict[str, Any] = metadata.arg_model.model_json_schema(by_alias=True)
        except (SDKInvalidSignature, PydanticUserError, NameError, TypeError) as error:
            raise InvalidSignature(f"{what} {self.name!r}: {error}") from error
        return metadata

    @functools.cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters that a caller may give, the Context left out."""
        signature = inspect.signature(self.fn)
        return {name: value for name, value in signature.parameters.items() if name != self.context_parameter}

    def annotation(self, name: str) -> Any:
        """The evaluated annotation of a parameter, metadata included; None where there is none."""
        return _hints(self.fn).get(name)

    def bind(self, arguments: dict[str, Any], *, decode_all: bool = False) -> dict[str, Any]:
        """Keyword arguments from JSON ones, coerced as pydantic's lax mode does.

        A string where something else is wanted is read as JSON if that gives an object, a list, a boolean or null
        (models tend to send objects as strings); with `decode_all` numbers too, for prompts, whose arguments are
        strings by protocol.

        Raises:
            pydantic.ValidationError: the arguments do not fit.
        """
        decoded = arguments
        for key in self._decodable:
            value = arguments.get(key)
            if isinstance(value, str):
                replacement = _from_json(value, decode_all)
                if replacement is not value:
                    if decoded is arguments:
                        decoded = dict(arguments)
                    decoded[key] = replacement
        try:
            model = self.metadata.arg_model.model_validate(decoded)
        except ValidationError as error:
            if decoded is arguments:
                raise
            # The text may have been meant as text after all ("null" for a name).
            try:
                model = self.metadata.arg_model.model_validate(arguments)
            except ValidationError:
                raise error from None  # of the two, the one that does not also complain about what was decoded
        return {name: getattr(model, key) for name, key in self._arguments}

    async def call(self, arguments: dict[str, Any], context: "Context | None") -> Any:
        """The function's result; a function that is not async runs in a thread and never blocks the loop."""
        if self.context_parameter is not None:
            arguments[self.context_parameter] = context
        if self.is_async:
            return await self.fn(**arguments)
        result = await run_in_thread(functools.partial(self.fn, **arguments))
        if inspect.isawaitable(result):
            return await result
        return result


class _Named:
    """Gives a callable object the name that schema generation asks for."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.__name__ = name
        self.__wrapped__ = fn
        self.__signature__ = inspect.signature(fn, eval_str=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


def docstring(fn: Callable[..., Any]) -> str:
    """The docstring of a function or of a callable object's class, indentation removed; empty where there is none."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.getdoc(fn) or ""


def function_name(fn: Callable[..., Any]) -> str:
    """The name of a function, or of a callable object's class."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", None) or type(fn).__name__


def _is_async(fn: Callable[..., Any]) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _check_parameters(fn: Callable[..., Any], name: str, what: str) -> None:
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.name.startswith("_"):
            raise InvalidSignature(f"Parameter {parameter.name} of {name} cannot start with '_'")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidSignature(
                f"{what} {name!r}: parameter {parameter} cannot be given by name; write each argument out"
            )


def _context_parameter(fn: Callable[..., Any]) -> str | None:
    """The first parameter whose annotation is `Context`, bare or as an arm of a union."""
    from mcpworker.context import Context

    for name, hint in _hints(fn).items():
        if name != "return" and _mentions(hint, Context):
            return name
    return None


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    while isinstance(fn, functools.partial):
        fn = fn.func
    target = fn if inspect.isroutine(fn) else type(fn).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        # The schema is made from the same annotations and says what is wrong with them.
        return dict(getattr(target, "__annotations__", {}))


def _mentions(hint: Any, cls: type) -> bool:
    if hint is cls or (isinstance(hint, str) and hint.split(".")[-1] == cls.__name__):
        return True
    if get_origin(hint) is Annotated:
        return _mentions(get_args(hint)[0], cls)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_mentions(arm, cls) for arm in get_args(hint))
    return isinstance(hint, type) and issubclass(hint, cls)


def _strip(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _from_json(text: str, numbers: bool) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, str) or (not numbers and isinstance(value, int | float) and not isinstance(value, bool)):
        return text
    return value

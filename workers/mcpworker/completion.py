"""Completion of the arguments of prompts and templates."""

import enum
import inspect
import types
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mcp_types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

from mcpworker.signature import Function

__all__ = ["Completer", "Reference", "choices_of", "complete", "completes"]

Reference = PromptReference | ResourceTemplateReference
_Values = Completion | list[str] | None
Completer = Callable[[Reference, CompletionArgument, CompletionContext | None], Awaitable[_Values] | _Values]

# 2025-11-25 server/utilities/completion: at most 100 values an answer.
_MAX_VALUES = 100


async def complete(
    completer: Completer | None,
    function: Function | None,
    reference: Reference,
    argument: CompletionArgument,
    known: CompletionContext | None,
) -> Completion:
    """What an argument may be: the server's completer says, else the choices that the annotation leaves."""
    values: _Values = None
    if completer is not None:
        answer = completer(reference, argument, known)
        values = await answer if inspect.isawaitable(answer) else answer
    if values is None and function is not None:
        choices = choices_of(function.annotation(argument.name))
        values = [choice for choice in choices if choice.startswith(argument.value)]
    if isinstance(values, Completion):
        return values
    found = values or []
    return Completion(values=found[:_MAX_VALUES], total=len(found), has_more=len(found) > _MAX_VALUES)


def completes(function: Function | None) -> bool:
    """Whether any argument of a function has choices."""
    return function is not None and any(choices_of(function.annotation(name)) for name in function.parameters)


def choices_of(annotation: Any) -> list[str]:
    """The values that an annotation allows, as text; empty where there is no end of them."""
    if get_origin(annotation) is Annotated:
        return choices_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for arm in get_args(annotation) for choice in choices_of(arm)]
    if annotation is bool:
        return ["true", "false"]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [str(member.value) for member in annotation]
    return []

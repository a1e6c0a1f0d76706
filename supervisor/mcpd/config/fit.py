"""Fit a table, as it was written, into its model; say all that does not fit in the operator's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mcpd.config.layers import Layered, depth
from mcpd.config.positions import KeyPath
from mcpd.config.registry import LimitsSpec, SandboxSpec, ServerSpec
from mcpd.config.report import Report, complaint
from mcpd.config.settings import DaemonSettings, FrontdoorSettings, Table

Model = TypeVar("Model", bound=Table)

_HOMES: Final[Mapping[str, type[Table]]] = {
    "[daemon]": DaemonSettings,
    "[frontdoor]": FrontdoorSettings,
    "[servers.NAME]": ServerSpec,
    "[servers.NAME.sandbox]": SandboxSpec,
    "[servers.NAME.limits]": LimitsSpec,
}


def fit(model: type[Model], table: Layered, base: Mapping[str, Any], report: Report) -> tuple[Model, frozenset[str]]:
    """The model made of `table`; with it the keys that were left out as wrong.

    `base` lies under the table: it is right, and enough to make the model of if every key of the table is left out.
    """
    written = dict(table.merged)
    if written.pop("name", None) is not None and "name" in model.model_fields:
        report.problem(table.place(("name",)), "unknown key 'name'", "the name is the one in the table's header")
    details = _misfits(model, {**base, **written})
    for detail in details:
        _tell(detail, model, table, report)
    wrong = [_location(detail) for detail in details]
    left_out = frozenset(str(path[0]) for path in wrong)
    kept = {key: value for key, value in written.items() if key not in left_out}
    return model.model_validate({**base, **kept}), left_out


def _misfits(model: type[Table], values: Mapping[str, Any]) -> list[ErrorDetails]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _location(detail: ErrorDetails) -> KeyPath:
    path = detail["loc"]
    return path[:-1] if path and path[-1] == "[key]" else path  # pydantic's mark for the key of a mapping


def _tell(detail: ErrorDetails, model: type[Table], table: Layered, report: Report) -> None:
    path = _location(detail)
    path = path[: depth(table.merged, path)]  # a rule of the whole table names a key of it that may not be written
    message, remedy = complaint(detail, lambda inner: known_keys(model, inner), _home)
    report.problem(table.place(path), message, remedy)


def known_keys(model: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    """The keys that may stand in the table at `path` of a table of this model."""
    for part in path:
        inner = model.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return tuple(key for key in model.model_fields if key != "name")


def _home(key: str) -> str | None:
    """Where a key belongs that somebody put elsewhere."""
    homes = [table for table, model in _HOMES.items() if key in known_keys(model, ())]
    return f"it belongs in {' or '.join(homes)}" if homes else None

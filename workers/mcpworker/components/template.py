"""Resource templates: a family of resources under URIs with parameters."""

import copy
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import mcp_types
from mcp import InvalidUriTemplate, UriTemplate
from mcp.shared.path_security import contains_path_traversal, is_absolute_path
from mcp_types import Annotations, Icon, InputRequiredResult, ReadResourceResult

from mcpworker.components.base import Described, check_mime_type
from mcpworker.errors import ResourceError
from mcpworker.signature import Function, docstring

if TYPE_CHECKING:
    from mcpworker.context import Context

__all__ = ["Matcher", "ResourceTemplate", "template_parameters"]

_SIMPLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\*?)\}")
_MAX_URI = 8192


def template_parameters(uri: str) -> set[str]:
    """The names in braces of a URI template; empty for a plain URI.

    Raises:
        ValueError: the braces make no template.
    """
    return set(Matcher(uri).names)


class Matcher:
    """Finds the parameters in a URI.

    `{x}` is one path segment or a part of it, `{x*}` any number of segments; every form of RFC 6570 that can be
    matched in one pass works as well.
    """

    def __init__(self, uri_template: str) -> None:
        self._regex = _as_regex(uri_template)
        if self._regex is not None:
            self.names = list(self._regex.groupindex)
            self._parsed = None
        else:
            # RFC 6570 spells "any number of segments" with a plus.
            self._parsed = UriTemplate.parse(_SIMPLE.sub(_with_plus, uri_template))
            self.names = list(self._parsed.variable_names)

    def match(self, uri: str) -> dict[str, Any] | None:
        if len(uri) > _MAX_URI:
            return None
        if self._parsed is not None:
            return self._parsed.match(uri)
        assert self._regex is not None
        found = self._regex.fullmatch(uri)
        return {name: unquote(value) for name, value in found.groupdict().items()} if found else None


def _with_plus(found: "re.Match[str]") -> str:
    return f"{{+{found[1]}}}" if found[2] else found[0]


def _as_regex(uri_template: str) -> "re.Pattern[str] | None":
    """A pattern where each segment holds at most one parameter and at most one spans segments, so that matching is
    linear; else None."""
    segments = uri_template.split("/")
    if any(len(_SIMPLE.findall(segment)) > 1 for segment in segments):
        return None
    stars = sum(found[2] == "*" for found in _SIMPLE.finditer(uri_template))
    if stars > 1 or set(_SIMPLE.sub("", uri_template)) & {"{", "}"}:
        return None
    pattern, position, seen = "", 0, set()
    for found in _SIMPLE.finditer(uri_template):
        if found[1] in seen:
            raise InvalidUriTemplate(f"{uri_template}: {found[1]!r} stands twice", template=uri_template)
        seen.add(found[1])
        pattern += re.escape(uri_template[position : found.start()])
        pattern += f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})"
        position = found.end()
    return re.compile(pattern + re.escape(uri_template[position:]), re.DOTALL)


class ResourceTemplate(Described):
    """A template: its function makes the content from the parameters in the URI.

    Raises:
        ValueError: parameters of the URI and of the function do not fit together.
    """

    def __init__(
        self,
        uri_template: str,
        *,
        fn: Callable[..., Any],
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str = "text/plain",
        tags: Iterable[str] | None = None,
        icons: list[Icon] | None = None,
        annotations: Annotations | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.uri_template = uri_template
        self.function = Function(fn, what="Resource template", name=name)
        super().__init__(
            self.function.name,
            title=title,
            description=description if description is not None else docstring(fn),
            tags=tags,
            icons=icons,
            meta=meta,
        )
        self.mime_type = check_mime_type(mime_type, uri_template)
        self.annotations = annotations
        self._matcher = Matcher(uri_template)
        self._check_parameters()

    @property
    def fn(self) -> Callable[..., Any]:
        """The function itself."""
        return self.function.fn

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the parameters."""
        return self.function.schema

    def _check_parameters(self) -> None:
        uri = set(self._matcher.names)
        if not uri:
            raise ValueError("URI template must contain at least one parameter")
        known = self.function.parameters
        required = {name for name, value in known.items() if value.default is inspect.Parameter.empty}
        if not required <= uri:
            raise ValueError(f"URI parameters {uri} must be a subset of the required function arguments: {required}")
        if not uri <= set(known):
            raise ValueError(f"URI parameters {uri} must be a subset of the function arguments: {set(known)}")

    def matches(self, uri: str) -> dict[str, Any] | None:
        """The parameters of a URI that belongs to this template, else None."""
        return self._matcher.match(uri)

    def under(self, uri_template: str) -> "ResourceTemplate":
        """The same template under another URI template with the same parameters."""
        copied = copy.copy(self)
        copied.uri_template = uri_template
        copied._matcher = Matcher(uri_template)
        return copied

    async def contents(
        self, uri: str, parameters: Mapping[str, Any], context: "Context | None" = None
    ) -> ReadResourceResult | InputRequiredResult:
        """What the function makes of the parameters.

        Raises:
            ResourceError: a parameter would leave the directory that a path is usually joined to, or holds NUL.
            pydantic.ValidationError: a parameter cannot be coerced.
        """
        from mcpworker.components.resources import Resource, contents_of

        for name, value in parameters.items():
            for part in value if isinstance(value, list) else [value]:
                if "\0" in part or contains_path_traversal(part) or is_absolute_path(part):
                    raise ResourceError(f"parameter {name!r} holds '..', an absolute path or NUL")
        value = await self.function.call(self.function.bind(dict(parameters)), context)
        if isinstance(value, ReadResourceResult | InputRequiredResult):
            return value
        if isinstance(value, Resource):
            return await value.contents(uri, context)
        return contents_of(uri, value, self.mime_type)

    def to_mcp_template(self, uri_template: str | None = None) -> mcp_types.ResourceTemplate:
        """The template as a listing shows it, under another URI if one is given."""
        return mcp_types.ResourceTemplate(
            uri_template=uri_template or self.uri_template,
            name=self.name,
            title=self.title,
            description=self.description,
            mime_type=self.mime_type,
            icons=self.icons,
            annotations=self.annotations,
            _meta=self.meta,
        )

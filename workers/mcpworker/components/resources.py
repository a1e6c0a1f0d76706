"""Resources: data that a client reads by URI."""

import base64
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mcp_types
from mcp_types import (
    Annotations,
    BlobResourceContents,
    Icon,
    InputRequiredResult,
    ReadResourceResult,
    TextResourceContents,
)

from mcpworker.components.base import Described, check_mime_type
from mcpworker.components.template import ResourceTemplate
from mcpworker.results import json_text, wire_text
from mcpworker.signature import Function, docstring
from mcpworker.threads import run_in_thread

if TYPE_CHECKING:
    from mcpworker.context import Context

__all__ = [
    "BinaryResource",
    "DirectoryResource",
    "FileResource",
    "FunctionResource",
    "HttpResource",
    "Resource",
    "ResourceTemplate",
    "TextResource",
]

_URI = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.\-]*:")
_HTTP_TIMEOUT = 30.0
_MAX_HTTP_BODY = 64 * 1024 * 1024


class Resource(Described):
    """A resource under a fixed URI. Subclasses say what it holds by `read`.

    Raises:
        ValueError: the URI has no scheme, or the MIME type is none.
    """

    def __init__(
        self,
        uri: str,
        name: str | None = None,
        *,
        title: str | None = None,
        description: str | None = None,
        mime_type: str = "text/plain",
        tags: Iterable[str] | None = None,
        icons: list[Icon] | None = None,
        annotations: Annotations | None = None,
        meta: dict[str, Any] | None = None,
        size: int | None = None,
    ) -> None:
        self.uri = str(uri)
        if not _URI.match(self.uri):
            raise ValueError(f"resource {self.uri!r} has no scheme; write it as, for example, data://{self.uri}")
        super().__init__(name or self.uri, title=title, description=description, tags=tags, icons=icons, meta=meta)
        self.mime_type = check_mime_type(mime_type, self.uri)
        self.annotations = annotations
        self.size = size

    async def read(self) -> str | bytes:
        """The content."""
        raise NotImplementedError

    async def contents(self, uri: str, context: "Context | None" = None) -> ReadResourceResult | InputRequiredResult:
        """The content as the protocol carries it, under the URI that the client asked for."""
        return contents_of(uri, await self.read(), self.mime_type)

    def to_mcp_resource(self, uri: str | None = None) -> mcp_types.Resource:
        """The resource as a listing shows it, under another URI if one is given."""
        return mcp_types.Resource(
            uri=uri or self.uri,
            name=self.name,
            title=self.title,
            description=self.description,
            mime_type=self.mime_type,
            size=self.size,
            icons=self.icons,
            annotations=self.annotations,
            _meta=self.meta,
        )


def contents_of(uri: str, value: Any, mime_type: str) -> ReadResourceResult:
    """A function's return value as resource contents: text, a blob for bytes, JSON for anything else."""
    if isinstance(value, bytes):
        blob = base64.b64encode(value).decode()
        return ReadResourceResult(contents=[BlobResourceContents(uri=uri, blob=blob, mime_type=mime_type)])
    text = wire_text(value) if isinstance(value, str) else json_text(value)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type=mime_type)])


class TextResource(Resource):
    """A resource that is a string."""

    def __init__(self, uri: str, name: str | None = None, *, text: str, **described: Any) -> None:
        super().__init__(uri, name, **described)
        self.text = text

    async def read(self) -> str:
        return self.text


class BinaryResource(Resource):
    """A resource that is bytes."""

    def __init__(self, uri: str, name: str | None = None, *, data: bytes, **described: Any) -> None:
        super().__init__(uri, name, **described)
        self.data = data

    async def read(self) -> bytes:
        return self.data


class FunctionResource(Resource):
    """A resource whose function runs on each read."""

    def __init__(
        self,
        uri: str,
        name: str | None = None,
        *,
        fn: Callable[..., Any],
        **described: Any,
    ) -> None:
        self.function = Function(fn, what="Resource", name=name)
        described["description"] = described.get("description") or docstring(fn) or None
        super().__init__(uri, self.function.name, **described)

    @property
    def fn(self) -> Callable[..., Any]:
        """The function itself."""
        return self.function.fn

    async def read(self) -> str | bytes:
        value = await self._value(None)
        return value if isinstance(value, str | bytes) else json_text(value)

    async def contents(self, uri: str, context: "Context | None" = None) -> ReadResourceResult | InputRequiredResult:
        value = await self._value(context)
        if isinstance(value, ReadResourceResult | InputRequiredResult):
            return value
        return contents_of(uri, value, self.mime_type)

    async def _value(self, context: "Context | None") -> Any:
        value = await self.function.call({}, context)
        return await value.read() if isinstance(value, Resource) else value


class FileResource(Resource):
    """A resource that is a file; bytes unless its MIME type is text.

    Raises:
        ValueError: the path is not absolute.
    """

    def __init__(
        self, uri: str, name: str | None = None, *, path: str | Path, is_binary: bool | None = None, **described: Any
    ) -> None:
        super().__init__(uri, name, **described)
        self.path = Path(path)
        if not self.path.is_absolute():
            raise ValueError(f"resource {self.uri!r}: path {path} is not absolute; write an absolute path")
        self.is_binary = not self.mime_type.startswith("text/") if is_binary is None else is_binary

    async def read(self) -> str | bytes:
        return await run_in_thread(self.path.read_bytes if self.is_binary else self._read_text)

    def _read_text(self) -> str:
        return self.path.read_text(encoding="utf-8")


class DirectoryResource(Resource):
    """A resource that is the list of files in a directory, as JSON.

    Raises:
        ValueError: the path is not absolute.
    """

    def __init__(
        self,
        uri: str,
        name: str | None = None,
        *,
        path: str | Path,
        recursive: bool = False,
        pattern: str | None = None,
        **described: Any,
    ) -> None:
        described.setdefault("mime_type", "application/json")
        super().__init__(uri, name, **described)
        self.path = Path(path)
        self.recursive = recursive
        self.pattern = pattern
        if not self.path.is_absolute():
            raise ValueError(f"resource {self.uri!r}: path {path} is not absolute; write an absolute path")

    def list_files(self) -> list[Path]:
        """The files, in order of their names.

        Raises:
            FileNotFoundError: there is no such directory.
            NotADirectoryError: the path is something else.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"Directory not found: {self.path}")
        if not self.path.is_dir():
            raise NotADirectoryError(f"Not a directory: {self.path}")
        pattern = self.pattern or "*"
        found = self.path.rglob(pattern) if self.recursive else self.path.glob(pattern)
        return sorted(path for path in found if path.is_file())

    async def read(self) -> str:
        files = await run_in_thread(self.list_files)
        return json.dumps({"files": [str(path.relative_to(self.path)) for path in files]}, indent=2)


class HttpResource(Resource):
    """A resource that is fetched by HTTP on each read."""

    def __init__(self, uri: str, name: str | None = None, *, url: str, **described: Any) -> None:
        described.setdefault("mime_type", "application/json")
        super().__init__(uri, name, **described)
        self.url = url

    async def read(self) -> str:
        return await run_in_thread(self._fetch)

    def _fetch(self) -> str:
        import urllib.request

        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"resource {self.uri!r}: {self.url} is neither http nor https")
        with urllib.request.urlopen(self.url, timeout=_HTTP_TIMEOUT) as response:  # noqa: S310 - checked above
            body: bytes = response.read(_MAX_HTTP_BODY + 1)
            charset = response.headers.get_content_charset() or "utf-8"
        if len(body) > _MAX_HTTP_BODY:
            raise ValueError(f"{self.url} answers with more than {_MAX_HTTP_BODY} bytes")
        return body.decode(charset)

"""Files below some directories: list, search, read. Nothing outside, whatever a path or a symbolic link says.

    python -m mcpworker files.py DIRECTORY...

A path begins with the name of a directory: `docs/guide.md` is guide.md in DIRECTORY …/docs.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mcpworker import FastMCP
from mcpworker.errors import ToolError

MAX_ENTRIES, MAX_MATCHES, MAX_SCANNED = 500, 100, 10_000
MAX_SEARCHED, MAX_READ = 2 * 1024 * 1024, 256 * 1024

mcp = FastMCP("files", instructions="Reads files below some directories. Begin with list_files and an empty path.")
READ_ONLY = {"readOnlyHint": True, "openWorldHint": False}
ROOTS: dict[str, Path] = {}


@dataclass
class Entry:
    path: str
    kind: str
    size: int


@dataclass
class Match:
    path: str
    line: int
    text: str


def add_root(argument: str) -> None:
    """Serve a directory under its name, with a number where the name is taken."""
    root = Path(argument).resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(f"{argument} is not a directory")
    name = root.name or "root"
    ROOTS[f"{name}-{len(ROOTS) + 1}" if name in ROOTS else name] = root


def locate(path: str) -> tuple[Path, Path]:
    """The root and the real place of a path.

    Raises:
        ToolError: there is no such thing below a root. What exists elsewhere reads the same as what does not exist.
    """
    name, _, rest = path.strip("/").partition("/")
    root = ROOTS.get(name)
    try:
        place = (root / rest).resolve(strict=True) if root else None
    except (OSError, RuntimeError, ValueError):
        place = None
    if root is None or place is None or not place.is_relative_to(root):
        raise ToolError(f"there is no {path!r}; the directories are: {', '.join(ROOTS) or 'none'}")
    return root, place


def read_bytes(path: str, limit: int, offset: int = 0) -> bytes:
    """Bytes of a regular file; what was opened is checked once more, in case a link was changed meanwhile."""
    root, place = locate(path)
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        opened = Path(f"/proc/self/fd/{descriptor}")
        if opened.exists() and not opened.readlink().is_relative_to(root):
            raise ToolError(f"there is no {path!r}")
        if not os.path.isfile(descriptor):
            raise ToolError(f"{path!r} is not a file; list_files shows what is in a directory")
        return os.pread(descriptor, limit, offset)
    finally:
        os.close(descriptor)


def walk(path: str) -> Iterator[str]:
    """The paths of the files below a directory; links to directories are not followed."""
    _, place = locate(path)
    if not place.is_dir():
        yield path.strip("/")
        return
    for parent, _, names in os.walk(place):
        yield from (f"{path.strip('/')}/{(Path(parent) / name).relative_to(place)}" for name in sorted(names))


@mcp.tool(annotations=READ_ONLY)
def list_files(path: Annotated[str, Field(description="a directory; empty for all of them")] = "") -> list[Entry]:
    """What is in a directory."""
    if not path.strip("/"):
        return [Entry(name, "directory", 0) for name in ROOTS]
    (_, place), entries = locate(path), []
    if not place.is_dir():
        raise ToolError(f"{path!r} is not a directory; read reads files")
    for name in sorted(os.listdir(place))[:MAX_ENTRIES]:
        try:
            _, target = locate(inner := f"{path.strip('/')}/{name}")
        except ToolError:
            continue  # a link that leads outside, or nowhere
        kind = "directory" if target.is_dir() else "file" if target.is_file() else "other"
        entries.append(Entry(inner, kind, target.stat().st_size if target.is_file() else 0))
    return entries


@mcp.tool(annotations=READ_ONLY)
def search(
    text: Annotated[str, Field(description="what a line must contain, in upper or lower case", min_length=1)],
    path: Annotated[str, Field(description="a directory or file; empty for all")] = "",
    name: Annotated[str, Field(description="a pattern for file names, such as *.md")] = "*",
) -> list[Match]:
    """Lines that contain a text."""
    found: list[Match] = []
    paths = (file for start in ([path] if path.strip("/") else ROOTS) for file in walk(start))
    for _, file in zip(range(MAX_SCANNED), (file for file in paths if Path(file).match(name)), strict=False):
        try:
            content = read_bytes(file, MAX_SEARCHED)
        except (ToolError, OSError):
            continue
        lines = enumerate([] if b"\0" in content[:1024] else content.decode(errors="replace").splitlines(), 1)
        found += [Match(file, number, line.strip()[:500]) for number, line in lines if text.lower() in line.lower()]
        if len(found) >= MAX_MATCHES:
            break
    return found[:MAX_MATCHES]


@mcp.tool(annotations=READ_ONLY)
def read(path: str, offset: Annotated[int, Field(ge=0, description="the byte to begin at, for long files")] = 0) -> str:
    """The text of a file; of a long one the part from an offset on."""
    content = read_bytes(path, MAX_READ + 1, offset)
    text = content[:MAX_READ].decode(errors="replace")
    return f"{text}\n[there is more: read again with offset {offset + MAX_READ}]" if len(content) > MAX_READ else text


@mcp.resource("files://{path*}")
def content(path: str) -> str:
    """The text of a file."""
    return read_bytes(path, MAX_READ).decode(errors="replace")


if __name__ == "__main__":
    for argument in sys.argv[1:] or sys.exit("files.py: which directories? usage: files.py DIRECTORY..."):
        add_root(argument)
    mcp.run()

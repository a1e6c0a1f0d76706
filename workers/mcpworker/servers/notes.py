"""Notes, kept in SQLite: add, find, list, delete; each note is a resource, and there is a prompt that sums them up.

    python -m mcpworker notes.py [FILE]

FILE (or NOTES_DB) is the database; without either it is notes.sqlite3 in the user's state directory.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import Field

from mcpworker import FastMCP
from mcpworker.errors import ResourceError, ToolError

STATE = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
DATABASE = Path(
    sys.argv[1] if len(sys.argv) > 1 else os.environ.get("NOTES_DB") or STATE / "mcpworker" / "notes.sqlite3"
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    tag TEXT NOT NULL DEFAULT '',
    made TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
)
"""
RECENT = "notes://recent"


@dataclass
class Note:
    id: int
    text: str
    tag: str
    made: str


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """A connection for one call: calls run in threads, side by side."""
    connection = sqlite3.connect(DATABASE, timeout=10)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


@asynccontextmanager
async def prepare(_: FastMCP) -> Any:
    """The table exists while the server runs."""
    DATABASE.parent.mkdir(parents=True, exist_ok=True)
    with database() as connection:
        connection.execute(SCHEMA)
    yield {}


mcp = FastMCP("notes", instructions="Keeps short notes from one conversation to the next.", lifespan=prepare)


def select(condition: str, *values: object, limit: int = 100) -> list[Note]:
    """Notes that fit, the newest first."""
    query = f"SELECT id, text, tag, made FROM notes WHERE {condition} ORDER BY id DESC LIMIT ?"  # noqa: S608
    with database() as connection:
        return [Note(*row) for row in connection.execute(query, (*values, limit))]


@mcp.tool(annotations=ToolAnnotations(destructive_hint=False, open_world_hint=False))
def add(
    text: Annotated[str, Field(min_length=1, max_length=100_000)],
    tag: Annotated[str, Field(description="a word to group notes by", max_length=100)] = "",
) -> Note:
    """Keep a note."""
    with database() as connection:
        cursor = connection.execute("INSERT INTO notes (text, tag) VALUES (?, ?)", (text, tag))
    mcp.notify_resource_updated(RECENT)
    return select("id = ?", cursor.lastrowid)[0]


@mcp.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
def find(text: Annotated[str, Field(description="what a note must contain, in upper or lower case")]) -> list[Note]:
    """Notes that contain a text, the newest first."""
    return select("instr(lower(text), lower(?)) > 0", text)


@mcp.tool(name="list", annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
def list_notes(
    tag: Annotated[str, Field(description="only notes with this tag; empty for all")] = "",
    limit: Annotated[int, Field(ge=1, le=1000)] = 20,
) -> list[Note]:
    """The newest notes."""
    return select("? IN ('', tag)", tag, limit=limit)


@mcp.tool(annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False))
def delete(id: int) -> str:
    """Delete a note for good."""
    with database() as connection:
        deleted = connection.execute("DELETE FROM notes WHERE id = ?", (id,)).rowcount
    if not deleted:
        raise ToolError(f"there is no note {id}; list shows which there are")
    mcp.notify_resource_updated(RECENT)
    mcp.notify_resource_updated(f"notes://{id}")
    return f"note {id} is deleted"


@mcp.resource(RECENT, mime_type="application/json")
def recent() -> list[Note]:
    """The twenty newest notes."""
    return select("1", limit=20)


@mcp.resource("notes://{id}")
def note(id: int) -> str:
    """The text of one note."""
    found = select("id = ?", id)
    if not found:
        raise ResourceError(f"there is no note {id}")
    return found[0].text


@mcp.prompt()
def summarize(tag: Annotated[str, Field(description="only notes with this tag; empty for all")] = "") -> str:
    """Sum up the notes."""
    notes = "\n".join(f"- {note.made} {note.text}" for note in select("? IN ('', tag)", tag))
    return f"Sum up these notes in a few sentences, the most pressing first:\n\n{notes or '(there are none)'}"


if __name__ == "__main__":
    mcp.run()

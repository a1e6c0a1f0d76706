"""The servers that ship with mcpd, run by the launcher as the daemon runs them."""

import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError

from support.worker_clients import Recorder, connected, stdio_parameters

pytestmark = pytest.mark.anyio

SERVERS = Path(__file__).parents[2] / "workers" / "mcpworker" / "servers"
ERAS = pytest.mark.parametrize("kind", ["stdio-legacy", "stdio-modern"])


@asynccontextmanager
async def serving(kind: str, name: str, *arguments: object, **options: Any) -> AsyncIterator[Client]:
    parameters = stdio_parameters(SERVERS / name, *map(str, arguments), launcher=True, env=dict(os.environ))
    async with connected(kind, parameters, **options) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    text = result.content[0].text if result.content else ""  # type: ignore[union-attr]
    assert not result.is_error, text
    structured = result.structured_content
    return structured["result"] if isinstance(structured, dict) and list(structured) == ["result"] else structured


async def failure(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    text: str = result.content[0].text  # type: ignore[union-attr]
    return text


@pytest.mark.parametrize("name", ["time.py", "files.py", "notes.py"])
def test_server_is_short_enough_to_be_an_example(name: str) -> None:
    assert len((SERVERS / name).read_text().splitlines()) < 150


# time -------------------------------------------------------------------------------------------------------------


@ERAS
async def test_time_tells_and_converts(kind: str) -> None:
    async with serving(kind, "time.py", "Asia/Kolkata") as client:
        now = await call(client, "now")
        assert (now["zone"], now["utc_offset"]) == ("Asia/Kolkata", "+05:30")

        converted = await call(client, "convert", time="2026-07-01T12:00", source="Europe/Berlin", target="UTC")
        assert converted["target"]["time"] == "2026-07-01T10:00:00+00:00"
        assert converted["source"]["daylight_saving"] is True
        assert converted["source"]["weekday"] == "Wednesday"

        winter = await call(
            client, "difference", zone="America/New_York", other="Europe/London", time="2026-01-15T12:00"
        )
        spring = await call(
            client, "difference", zone="America/New_York", other="Europe/London", time="2026-03-15T12:00"
        )
        assert (winter["hours"], spring["hours"]) == (-5.0, -4.0)  # for two weeks only one of them has changed
        assert winter["text"] == "America/New_York is -05:00 from Europe/London"


async def test_time_understands_a_time_of_day() -> None:
    async with serving("stdio-legacy", "time.py", "UTC") as client:
        converted = await call(client, "convert", time="9:30", target="Asia/Kathmandu")
        assert converted["source"]["time"].endswith("T09:30:00+00:00")
        assert converted["target"]["time"].endswith("T15:15:00+05:45")


async def test_time_helps_with_wrong_words() -> None:
    async with serving("stdio-legacy", "time.py") as client:
        assert "did you mean Europe/Berlin?" in await failure(client, "now", zone="berlin")
        assert "there is no time zone '../../etc/passwd'" in await failure(client, "now", zone="../../etc/passwd")
        assert "'soon' is no time; write 14:30" in await failure(client, "convert", time="soon", target="UTC")


async def test_time_lists_and_completes_zones() -> None:
    async with serving("stdio-legacy", "time.py") as client:
        [item] = (await client.read_resource("time://zones/Europe")).contents
        assert "Europe/Berlin" in json.loads(item.text)  # type: ignore[union-attr]
        reference = types.ResourceTemplateReference(uri="time://zones/{area}")
        found = await client.complete(reference, {"name": "area", "value": "eu"})
        assert found.completion.values == ["Europe"]


# files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "guide.md").write_text("# Guide\nNeedle in line two\n")
    (docs / "deep" / "notes.txt").write_text("nothing\nanother NEEDLE\n")
    (docs / "binary").write_bytes(b"\0needle")
    (tmp_path / "secret.txt").write_text("needle: top secret")
    (docs / "inside").symlink_to("deep/notes.txt")
    (docs / "outside").symlink_to(tmp_path / "secret.txt")
    (docs / "up").symlink_to("..")
    (docs / "loop").symlink_to("loop")
    os.mkfifo(docs / "fifo")
    return docs


@ERAS
async def test_files_lists_searches_and_reads(kind: str, tree: Path) -> None:
    async with serving(kind, "files.py", tree) as client:
        assert await call(client, "list_files") == [{"path": "docs", "kind": "directory", "size": 0}]
        entries = {item["path"]: item["kind"] for item in await call(client, "list_files", path="docs")}
        assert entries == {
            "docs/binary": "file",
            "docs/deep": "directory",
            "docs/fifo": "other",
            "docs/guide.md": "file",
            "docs/inside": "file",
        }
        assert (await call(client, "read", path="docs/guide.md")).startswith("# Guide")
        assert await call(client, "read", path="docs/inside") == "nothing\nanother NEEDLE\n"
        found = await call(client, "search", text="needle")
        assert {(item["path"], item["line"]) for item in found} == {
            ("docs/guide.md", 2),
            ("docs/deep/notes.txt", 2),
            ("docs/inside", 2),
        }
        assert [item["path"] for item in await call(client, "search", text="needle", name="*.md")] == ["docs/guide.md"]
        [item] = (await client.read_resource("files://docs/deep/notes.txt")).contents
        assert item.text == "nothing\nanother NEEDLE\n"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "path",
    [
        "docs/../secret.txt",
        "docs/outside",
        "docs/up/secret.txt",
        "docs/loop",
        "docs/deep/../../secret.txt",
        "../secret.txt",
        "/etc/passwd",
        "etc/passwd",
        "docs//etc/passwd",
        "docs/\0",
        "absent",
        "",
        "docs/absent",
    ],
)
async def test_files_outside_do_not_exist(tree: Path, path: str) -> None:
    async with serving("stdio-legacy", "files.py", tree) as client:
        assert f"there is no {path!r}" in await failure(client, "read", path=path)
        assert (
            f"there is no {path!r}" in await failure(client, "search", text="secret", path=path or "absent") or not path
        )
        with pytest.raises(MCPError):
            await client.read_resource(f"files://{path}")


async def test_files_does_not_wait_for_what_is_no_file(tree: Path) -> None:
    async with serving("stdio-legacy", "files.py", tree) as client:
        with anyio.fail_after(10):
            assert "is not a file" in await failure(client, "read", path="docs/fifo")
            assert "is not a file" in await failure(client, "read", path="docs/deep")
            assert "is not a directory" in await failure(client, "list_files", path="docs/guide.md")


async def test_files_of_equal_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "docs").mkdir(parents=True)
        (tmp_path / parent / "docs" / "x").write_text(parent)
    async with serving("stdio-legacy", "files.py", tmp_path / "a" / "docs", tmp_path / "b" / "docs") as client:
        assert [await call(client, "read", path=path) for path in ("docs/x", "docs-2/x")] == ["a", "b"]


async def test_files_reads_long_ones_in_parts(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 300_000)
    async with serving("stdio-legacy", "files.py", tmp_path) as client:
        path = f"{tmp_path.name}/long"
        first = await call(client, "read", path=path)
        assert first.endswith("[there is more: read again with offset 262144]")
        assert await call(client, "read", path=path, offset=262_144) == "x" * (300_000 - 262_144)


# notes ------------------------------------------------------------------------------------------------------------


@ERAS
async def test_notes_are_added_found_listed_deleted_and_kept(kind: str, tmp_path: Path) -> None:
    database = tmp_path / "deep" / "notes.db"
    async with serving(kind, "notes.py", database) as client:
        milk = await call(client, "add", text="Buy MILK", tag="shop")
        await call(client, "add", text="100% sure_thing")
    async with serving(kind, "notes.py", database) as client:
        assert [note["text"] for note in await call(client, "list")] == ["100% sure_thing", "Buy MILK"]
        assert [note["id"] for note in await call(client, "list", tag="shop")] == [milk["id"]]
        assert [note["text"] for note in await call(client, "find", text="milk")] == ["Buy MILK"]
        assert [note["text"] for note in await call(client, "find", text="%")] == ["100% sure_thing"]
        [item] = (await client.read_resource(f"notes://{milk['id']}")).contents
        assert item.text == "Buy MILK"  # type: ignore[union-attr]
        prompt = await client.get_prompt("summarize", {"tag": "shop"})
        assert "Buy MILK" in prompt.messages[0].content.text  # type: ignore[union-attr]
        assert "100%" not in prompt.messages[0].content.text  # type: ignore[union-attr]
        assert await call(client, "delete", id=milk["id"]) == f"note {milk['id']} is deleted"
        assert "there is no note" in await failure(client, "delete", id=milk["id"])
        with pytest.raises(MCPError, match=f"there is no note {milk['id']}"):
            await client.read_resource(f"notes://{milk['id']}")
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (1,)
    connection.close()


async def test_notes_take_their_path_from_the_environment(tmp_path: Path) -> None:
    database = tmp_path / "n.db"
    parameters = stdio_parameters(SERVERS / "notes.py", launcher=True, env={**os.environ, "NOTES_DB": str(database)})
    async with connected("stdio-legacy", parameters) as client:
        await call(client, "add", text="x")

    assert database.exists()


async def test_notes_may_be_added_side_by_side(tmp_path: Path) -> None:
    async with serving("stdio-legacy", "notes.py", tmp_path / "n.db") as client:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(lambda number=number: call(client, "add", text=f"note {number}"))
        assert len(await call(client, "list", limit=100)) == 20


async def test_followers_of_recent_notes_hear_of_a_new_one(tmp_path: Path) -> None:
    recorder = Recorder()
    parameters = stdio_parameters(SERVERS / "notes.py", str(tmp_path / "n.db"), launcher=True)
    async with connected("stdio-legacy", parameters, recorder) as client:
        request = types.SubscribeRequest(params=types.SubscribeRequestParams(uri="notes://recent"))
        await client.session.send_request(request, types.EmptyResult)
        await call(client, "add", text="x")
        with anyio.fail_after(5):
            while not any(isinstance(item, types.ResourceUpdatedNotification) for item in recorder.messages):
                await anyio.lowlevel.checkpoint()

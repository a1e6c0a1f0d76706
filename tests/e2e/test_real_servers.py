"""Servers that people run, from npm, from PyPI and our own: each as it is installed, through a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import Client

from e2e.clients import TRANSPORTS, Recorder, Way, connected, text_of
from support.daemon import PEERS, SERVERS, Daemon, running, script_server

NODE = PEERS / "node" / "node_modules" / "@modelcontextprotocol"
PYTHON = PEERS / "python" / "bin"
GIT_ENV = {
    **os.environ,
    **{f"GIT_{role}_{what}": f"ada@{what}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
# as any other user than the repository's git wants to be told that this is meant, and who that is
GIT_KEYS = (
    'GIT_CONFIG_COUNT = "3", GIT_CONFIG_KEY_0 = "safe.directory", GIT_CONFIG_VALUE_0 = "*", '
    'GIT_CONFIG_KEY_1 = "user.name", GIT_CONFIG_VALUE_1 = "Ada", '
    'GIT_CONFIG_KEY_2 = "user.email", GIT_CONFIG_VALUE_2 = "ada@example.org"'
)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")]


def npm(name: str, package: str, *args: str, env: str = "{}") -> str:
    program = NODE / package / "dist" / "index.js"
    return f"[servers.{name}]\ncommand = {json.dumps(['node', str(program), *args])}\nenv = {env}\n"


def pypi(name: str, program: str, *args: str) -> str:
    return f"[servers.{name}]\ncommand = {json.dumps([str(PYTHON / program), *args])}\nenv = {{ {GIT_KEYS} }}\n"


def granted(server: str, kind: str, path: Path) -> str:
    """A server that is contained as by default, but for one directory."""
    return f'[servers.{server}.sandbox]\nprofile = "filesystem"\n{kind} = [{json.dumps(str(path))}]\n'


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """Directories for the servers that work on files, and a git repository with one commit.

    Open to everybody: under root each server has a uid of its own.
    """
    with tempfile.TemporaryDirectory(prefix="mcpd-ground-") as directory:
        ground = Path(directory)
        for name in ("shelf", "desk", "kept", "repository"):
            (ground / name).mkdir()
        (ground / "secret.txt").write_text("not to be read")
        (ground / "shelf" / "poem.txt").write_text("Tyger Tyger, burning bright,\nIn the forests of the night;\n")
        (ground / "shelf" / "way-out").symlink_to(ground / "secret.txt")
        (ground / "repository" / "hello.txt").write_text("hello\n")
        for command in (["init", "-q", "-b", "main"], ["add", "hello.txt"], ["commit", "-q", "-m", "Say hello"]):
            subprocess.run(["git", *command], cwd=ground / "repository", env=GIT_ENV, check=True, timeout=30)
        subprocess.run(["chmod", "-R", "a+rwX", directory], check=True, timeout=30)
        yield ground


@pytest.fixture(scope="module")
def daemon(ground: Path) -> Iterator[Daemon]:
    registry = [
        npm("npm-everything", "server-everything", "stdio"),
        npm("npm-filesystem", "server-filesystem", str(ground / "desk")),
        npm("npm-memory", "server-memory", env=f'{{ MEMORY_FILE_PATH = "{ground / "kept" / "memory.jsonl"}" }}'),
        pypi("pypi-time", "mcp-server-time", "--local-timezone", "UTC"),
        pypi("pypi-git", "mcp-server-git", "--repository", str(ground / "repository")),
        script_server("time", SERVERS / "time.py"),
        script_server("files", SERVERS / "files.py", str(ground / "shelf")),
        script_server("notes", SERVERS / "notes.py", str(ground / "kept" / "notes.sqlite3")),
        granted("npm-filesystem", "write", ground / "desk"),
        granted("npm-memory", "write", ground / "kept"),
        granted("pypi-git", "write", ground / "repository"),
        granted("files", "read", ground),
        granted("notes", "write", ground / "kept"),
    ]
    with running("".join(registry)) as daemon:
        yield daemon


class Use:
    """One client's session with one server, under whatever names."""

    def __init__(self, ground: Path, client: Client, name: Callable[[str], str], heard: Recorder) -> None:
        self.ground = ground
        self.client = client
        self.name = name
        self.heard = heard

    async def call(self, tool: str, **arguments: Any) -> str:
        result = await self.client.call_tool(self.name(tool), arguments, progress_callback=self.heard.on_progress)
        assert not result.is_error, text_of(result)
        return "\n".join(content.text for content in result.content if isinstance(content, types.TextContent))

    async def refused(self, tool: str, **arguments: Any) -> str:
        result = await self.client.call_tool(self.name(tool), arguments)
        assert result.is_error
        return text_of(result)


async def npm_everything(use: Use) -> None:
    assert await use.call("echo", message="hello") == "Echo: hello"
    assert "5" in await use.call("get-sum", a=2, b=3)
    assert "completed" in await use.call("trigger-long-running-operation", duration=0.3, steps=3)
    await use.heard.until(lambda: [progress for progress, _, _ in use.heard.progress] == [1, 2, 3])
    structured = await use.client.call_tool(use.name("get-structured-content"), {"location": "New York"})
    assert structured.structured_content is not None
    assert structured.structured_content["conditions"]
    image = await use.client.call_tool(use.name("get-tiny-image"), {})
    assert "image" in [content.type for content in image.content]
    assert "forty-two" in await use.call("trigger-sampling-request", prompt="Say something", maxTokens=10)
    assert "accept" in await use.call("trigger-elicitation-request")
    resources = (await use.client.list_resources()).resources
    read = await use.client.read_resource(resources[0].uri)
    assert str(read.contents[0].uri) == str(resources[0].uri)
    prompt = await use.client.get_prompt(use.name("args-prompt"), {"city": "Oslo"})
    assert "Oslo" in prompt.messages[0].content.model_dump_json()


async def npm_filesystem(use: Use) -> None:
    letter = str(use.ground / "desk" / "letter.txt")
    await use.call("write_file", path=letter, content="Dear Ada,\n")
    assert (use.ground / "desk" / "letter.txt").read_text() == "Dear Ada,\n"
    assert "Dear Ada" in await use.call("read_text_file", path=letter)
    await use.call("edit_file", path=letter, edits=[{"oldText": "Ada", "newText": "Grace"}])
    assert (use.ground / "desk" / "letter.txt").read_text() == "Dear Grace,\n"
    assert "letter.txt" in await use.call("list_directory", path=str(use.ground / "desk"))
    assert "denied" in await use.refused("read_text_file", path=str(use.ground / "secret.txt"))


async def npm_memory(use: Use) -> None:
    await use.call("delete_entities", entityNames=["Ada", "Engine"])
    people = [{"name": name, "entityType": "thing", "observations": ["is old"]} for name in ("Ada", "Engine")]
    await use.call("create_entities", entities=people)
    await use.call("create_relations", relations=[{"from": "Ada", "to": "Engine", "relationType": "programmed"}])
    graph = json.loads(await use.call("search_nodes", query="Ada"))
    assert [entity["name"] for entity in graph["entities"]] == ["Ada"]
    whole = json.loads(await use.call("read_graph"))
    assert [(one["from"], one["to"]) for one in whole["relations"]] == [("Ada", "Engine")]


async def pypi_time(use: Use) -> None:
    now = json.loads(await use.call("get_current_time", timezone="Asia/Tokyo"))
    assert now["datetime"].endswith("+09:00")
    answer = await use.call(
        "convert_time", source_timezone="Asia/Tokyo", time="16:30", target_timezone="America/Bogota"
    )
    assert json.loads(answer)["time_difference"] == "-14.0h"


async def pypi_git(use: Use) -> None:
    repository = use.ground / "repository"
    name = f"{len(list(repository.iterdir()))}.txt"
    (repository / name).write_text("more\n")
    where = {"repo_path": str(repository)}
    assert name in await use.call("git_status", **where)
    await use.call("git_add", **where, files=[name])
    assert "+more" in await use.call("git_diff_staged", **where)
    await use.call("git_commit", **where, message=f"Add {name}")
    assert f"Add {name}" in await use.call("git_log", **where, max_count=1)
    log = subprocess.run(["git", "log", "--format=%s"], cwd=repository, capture_output=True, text=True, check=True)
    assert log.stdout.splitlines()[0] == f"Add {name}"
    assert log.stdout.splitlines()[-1] == "Say hello"


async def time(use: Use) -> None:
    now = json.loads(await use.call("now", zone="Asia/Tokyo"))
    assert "+09:00" in json.dumps(now)
    converted = await use.call("convert", time="2026-07-01T16:30", source="Asia/Tokyo", target="America/Bogota")
    assert "02:30" in converted
    assert "14" in await use.call("difference", zone="Asia/Tokyo", other="America/Bogota")


async def files(use: Use) -> None:
    assert "shelf/poem.txt" in await use.call("list_files", path="shelf")
    assert "burning bright" in await use.call("read", path="shelf/poem.txt")
    assert "forests" in await use.call("search", text="forests")
    assert "there is no" in await use.refused("read", path="shelf/way-out")
    assert "there is no" in await use.refused("read", path="shelf/../secret.txt")


async def notes(use: Use) -> None:
    def updates() -> list[Any]:
        return use.heard.notices_of(types.ResourceUpdatedNotification)

    await use.client.subscribe_resource("notes://recent")
    note = json.loads(await use.call("add", text="Buy candles", tag="home"))
    await use.heard.until(updates)
    assert "Buy candles" in await use.call("find", text="CANDLES")
    assert f'"id":{note["id"]}' in (await use.call("list", tag="home")).replace(" ", "")
    read = await use.client.read_resource(f"notes://{note['id']}")
    assert isinstance(read.contents[0], types.TextResourceContents)
    assert read.contents[0].text == "Buy candles"
    prompt = await use.client.get_prompt(use.name("summarize"), {"tag": "home"})
    assert "Buy candles" in prompt.messages[0].content.model_dump_json()
    await use.call("delete", id=note["id"])
    assert "no note" in await use.refused("delete", id=note["id"])


ROUND_TRIPS: dict[str, Callable[[Use], Awaitable[None]]] = {
    "npm-everything": npm_everything,
    "npm-filesystem": npm_filesystem,
    "npm-memory": npm_memory,
    "pypi-time": pypi_time,
    "pypi-git": pypi_git,
    "time": time,
    "files": files,
    "notes": notes,
}


@pytest.mark.parametrize("server", ROUND_TRIPS)
@pytest.mark.parametrize("scope", ["all", "server"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_round_trip(daemon: Daemon, ground: Path, transport: str, scope: str, server: str) -> None:
    way = Way(transport, server if scope == "server" else scope)
    heard = Recorder()
    async with connected(daemon, way, heard) as client:
        use = Use(ground, client, lambda own: way.name(server, own), heard)
        listed = [tool.name for tool in (await client.list_tools()).tools]
        assert listed == [way.name(server, tool) for tool in own_tools(daemon, server)] or scope == "all"
        await ROUND_TRIPS[server](use)


def own_tools(daemon: Daemon, server: str) -> list[str]:
    """The tools that `mcpctl tools` shows of a server."""
    return [tool.name for tool in daemon.control.tools(server)]


@pytest.mark.long  # npx takes seconds to start anything
@pytest.mark.timeout(240)
def test_what_npx_starts_is_gone_after_a_restart_and_after_a_stop() -> None:
    """npx is a process of its own, with a shell and the server below it: three for one, and none is left."""
    npx = ["npx", "--no-install", "mcp-server-everything"]
    env = '{ npm_config_cache = "/tmp/npm", npm_config_offline = "true" }'
    keys = f'start_timeout = "2m"\nstop_timeout = "1s"\nenv = {env}'
    server = f"[servers.wrapped]\ncommand = {json.dumps(npx)}\ncwd = {json.dumps(str(PEERS / 'node'))}\n{keys}\n"
    with running(server) as daemon, closing(daemon.tree()) as first:
        assert len(first.pids) >= 4

        assert daemon.control.restart("wrapped").ok

        with closing(daemon.tree()) as second:
            assert daemon.control.stop("wrapped").ok
            first.wait_gone()
            second.wait_gone()

"""Every example of docs/servers.md, run as the page says."""

import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import Client

from support.worker_clients import LAUNCHER, MODERN, Recorder, connected, stdio_parameters

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
EXAMPLES = dict(re.findall(r'```python title="([\w.]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL))

Check = Callable[[Client, Recorder], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def example(name: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


def run_as_program(directory: Path, name: str) -> str:
    """The output of an example that is no server."""
    done = subprocess.run(
        [sys.executable, name], cwd=directory, capture_output=True, text=True, timeout=60, check=False, env=clean()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FASTMCP_")}


PROGRAMS = {"configured.py": "8080 INFO error\n", "test_greeter.py": "passed\n"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """All files of the page, beside each other."""
    for name, source in EXAMPLES.items():
        (tmp_path / name).write_text(source)
    return tmp_path


def test_every_example_is_a_whole_file_with_a_check() -> None:
    fences = re.findall(r"^```python.*$", PAGE.read_text(), re.MULTILINE)

    assert len(fences) == len(EXAMPLES)
    assert set(EXAMPLES) == set(CHECKS) | set(PROGRAMS)


def test_links_within_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\(#([\w-]+)\)", text)) <= anchors


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_says_what_the_page_says(directory: Path, name: str) -> None:
    assert run_as_program(directory, name) == PROGRAMS[name]


@pytest.mark.parametrize("kind", ["stdio-legacy", "stdio-modern"])
@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - set(PROGRAMS)))
async def test_example_does_what_the_page_says(directory: Path, name: str, kind: str) -> None:
    recorder = Recorder()
    parameters = stdio_parameters(directory / name, launcher=True)
    async with connected(kind, parameters, recorder, log_level="info") as client:
        await CHECKS[name](client, recorder)


@pytest.mark.parametrize("name", ["greeter.py", "everything.py"])
def test_example_ends_cleanly_when_its_client_leaves(directory: Path, name: str) -> None:
    argv = [sys.executable, str(LAUNCHER), str(directory / name)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.content[0].text  # type: ignore[union-attr]


async def failure(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    text: str = result.content[0].text  # type: ignore[union-attr]
    return text


async def read(client: Client, uri: str) -> str:
    [item] = (await client.read_resource(uri)).contents
    assert isinstance(item, types.TextResourceContents)
    return item.text


@example("greeter.py")
async def check_greeter(client: Client, _: Recorder) -> None:
    assert await call(client, "greet", name="Ada") == "Hello, Ada!"
    [tool] = (await client.list_tools()).tools
    assert (tool.name, tool.description) == ("greet", "Greet somebody.")


@example("shop.py")
async def check_shop(client: Client, _: Recorder) -> None:
    items = [{"name": "tea", "price": 3.5, "amount": 2}, {"name": "cup", "price": "8"}]
    assert await call(client, "total", items=items, shipping="express") == "24.9"
    assert await call(client, "total", items='[{"name": "tea", "price": 3.5}]') == "8.4"
    assert "greater than 0" in await failure(client, "total", items=[{"name": "tea", "price": -1}])
    [tool] = (await client.list_tools()).tools
    assert tool.title == "Add up an order"
    assert tool.input_schema["$defs"]["Item"]["properties"]["price"]["description"] == "in euros"


@example("results.py")
async def check_results(client: Client, _: Recorder) -> None:
    weather = await client.call_tool("weather", {"city": "Lima"})
    assert weather.structured_content == {"city": "Lima", "celsius": 21.5}
    report = await client.call_tool("report")
    assert [block.type for block in report.content] == ["text", "image", "resource"]
    assert report.content[2].resource.text == "a,b\n1,2\n"  # type: ignore[union-attr]


@example("accounts.py")
async def check_accounts(client: Client, _: Recorder) -> None:
    assert await call(client, "withdraw", account="ada", amount=20) == "100"
    assert (
        await failure(client, "withdraw", account="ada", amount=500) == "Error executing tool withdraw: only 100 left"
    )
    assert "there are: ada" in await failure(client, "withdraw", account="bob", amount=1)


@example("library.py")
async def check_library(client: Client, _: Recorder) -> None:
    assert '"2": "Notes by the Translator"' in await read(client, "library://books")
    assert await read(client, "library://books/1") == "On the Origin of Species"
    assert await read(client, "library://search/Origin/of") == '["On the Origin of Species"]'
    assert await read(client, "library://search/t?limit=1") == '["On the Origin of Species"]'
    assert await read(client, "library://hours") == "9 to 5"
    assert (await read(client, "library://source")).startswith("from pathlib import Path")


@example("writing.py")
async def check_writing(client: Client, _: Recorder) -> None:
    review = await client.get_prompt("review", {"text": "Once upon a time", "tone": "strict"})
    assert [(item.role, item.content.text) for item in review.messages] == [  # type: ignore[union-attr]
        ("user", "Review this text. Be strict."),
        ("assistant", "Show me the text, please."),
        ("user", "Once upon a time"),
    ]
    average = await client.get_prompt("average", {"numbers": "[1, 2]"})
    assert "is 1.5" in average.messages[0].content.text  # type: ignore[union-attr]


@example("places.py")
async def check_places(client: Client, _: Recorder) -> None:
    found = await client.complete(types.ResourceTemplateReference(uri="city://{name}"), {"name": "name", "value": "li"})
    assert found.completion.values == ["Lima", "Lisbon"]


@example("travel.py")
async def check_travel(client: Client, recorder: Recorder) -> None:
    async def on_elicitation(_: Any, params: types.ElicitRequestFormParams) -> types.ElicitResult:
        assert set(params.requested_schema["properties"]) == {"city", "nights"}
        return types.ElicitResult(action="accept", content={"city": "Lima", "nights": 3})

    client.session._elicitation_callback = on_elicitation  # type: ignore[assignment]
    steps: list[str | None] = []

    async def on_progress(_: float, __: float | None, message: str | None) -> None:
        steps.append(message)

    result = await client.call_tool("plan", {}, progress_callback=on_progress)
    assert result.content[0].text == "3 nights in Lima. forty-two"  # type: ignore[union-attr]
    assert steps == ["night 1", "night 2", "night 3"]
    assert ("info", "planned Lima", None) in recorder.logs
    assert await call(client, "where") == '["file:///home/ada"]'


@example("counter.py")
async def check_counter(client: Client, _: Recorder) -> None:
    assert [await call(client, "count") for _ in range(3)] == ["1", "2", "3"]


@example("board.py")
async def check_board(client: Client, recorder: Recorder) -> None:
    names = {tool.name for tool in (await client.list_tools()).tools}
    assert await call(client, "write", line="hello") == "1"
    assert {tool.name for tool in (await client.list_tools()).tools} == names | {"wipe"}
    assert await read(client, "board://lines") == '["hello"]'
    assert await call(client, "wipe") == "wiped"
    assert {tool.name for tool in (await client.list_tools()).tools} == names
    if client.protocol_version != MODERN:
        assert any(isinstance(item, types.ToolListChangedNotification) for item in recorder.messages)


@example("everything.py")
async def check_everything(client: Client, _: Recorder) -> None:
    assert await call(client, "hi_greet", name="Ada") == "Hello, Ada!"
    assert await read(client, "lib+library://books/1") == "On the Origin of Species"
    assert {prompt.name for prompt in (await client.list_prompts()).prompts} == {"writing_review", "writing_average"}


@example("frontend.py")
async def check_frontend(client: Client, _: Recorder) -> None:
    assert {tool.name for tool in (await client.list_tools()).tools} == {"greet", "goodbye"}
    assert await call(client, "greet", name="Ada") == "Hello, Ada!"
    assert await call(client, "goodbye", name="Ada") == "Goodbye, Ada!"


@example("unchanged.py")
async def check_unchanged(client: Client, _: Recorder) -> None:
    assert await call(client, "multiply", a=6, b="7") == "42.0"

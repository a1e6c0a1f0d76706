"""Resources and templates: registration, matching, reading."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mcp_types as types
import pytest
from mcp import MCPError

from mcpworker import Context, FastMCP
from mcpworker.components.resources import (
    BinaryResource,
    DirectoryResource,
    FileResource,
    FunctionResource,
    HttpResource,
    TextResource,
)
from mcpworker.components.template import ResourceTemplate, template_parameters
from mcpworker.errors import ResourceError
from support.in_memory import asked, in_memory

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> FastMCP[Any]:
    return FastMCP("Resources")


async def read(server: FastMCP[Any], uri: str) -> types.TextResourceContents:
    [item] = (await asked(server, lambda client: client.read_resource(uri))).contents
    assert isinstance(item, types.TextResourceContents)
    return item


async def test_name_and_description_come_from_the_function(server: FastMCP[Any]) -> None:
    @server.resource("data://a")
    def first() -> str:
        """Words."""
        return ""

    @server.resource(uri="data://b", name="B", description="D", mime_type="application/json", tags={"t"}, title="T")
    def second() -> str:
        return ""

    resources = await server.get_resources()
    assert (resources["data://a"].name, resources["data://a"].description) == ("first", "Words.")
    listed = resources["data://b"].to_mcp_resource()
    assert (listed.name, listed.description, listed.mime_type, listed.title) == ("B", "D", "application/json", "T")
    assert resources["data://b"].tags == {"t"}


async def test_function_runs_on_each_read(server: FastMCP[Any]) -> None:
    reads: list[int] = []

    @server.resource("data://count")
    def count() -> int:
        reads.append(1)
        return len(reads)

    assert [(await read(server, "data://count")).text for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize(("value", "text"), [("x", "x"), ({"a": 1}, '{"a": 1}'), ([1], "[1]"), (None, "null")])
async def test_value_becomes_text(server: FastMCP[Any], value: Any, text: str) -> None:
    server.add_resource_fn(lambda: value, "data://x", name="x")

    item = await read(server, "data://x")
    assert (item.text, item.mime_type) == (text, "text/plain")


async def test_function_may_return_a_resource(server: FastMCP[Any]) -> None:
    server.add_resource_fn(lambda: TextResource("data://inner", text="inner"), "data://outer", name="x")

    @server.resource("data://by/{name}")
    def by(name: str) -> TextResource:
        return TextResource("data://inner", text=name, mime_type="text/x-name")

    assert (await read(server, "data://outer")).text == "inner"
    assert (await read(server, "data://by/Ada")).mime_type == "text/x-name"


async def test_function_may_return_contents_of_its_own(server: FastMCP[Any]) -> None:
    contents = [types.TextResourceContents(uri=f"data://{index}", text=str(index)) for index in range(2)]
    server.add_resource_fn(lambda: types.ReadResourceResult(contents=contents), "data://both", name="both")

    async with in_memory(server) as client:
        assert (await client.read_resource("data://both")).contents == contents


async def test_resource_may_be_served_under_another_key(server: FastMCP[Any]) -> None:
    server.add_resource(TextResource("data://x", text="x"), key="other://y")

    async with in_memory(server) as client:
        assert [item.uri for item in (await client.list_resources()).resources] == ["other://y"]
        with pytest.raises(MCPError, match="Unknown resource"):
            await client.read_resource("data://x")
    assert (await read(server, "other://y")).uri == "other://y"


@pytest.mark.parametrize("uri", ["no-scheme", "", "1x://y", "a_b://c"])
def test_uri_without_a_scheme_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="has no scheme"):
        TextResource(uri, text="x")


@pytest.mark.parametrize("mime_type", ["text", "text/", "/plain", "a b/c", ""])
def test_what_is_no_mime_type_is_refused(mime_type: str) -> None:
    with pytest.raises(ValueError, match="is no MIME type"):
        TextResource("data://x", text="x", mime_type=mime_type)
    with pytest.raises(ValueError, match="is no MIME type"):
        ResourceTemplate("data://{x}", fn=lambda x: x, name="x", mime_type=mime_type)


# Classes ----------------------------------------------------------------------------------------------------------


async def test_text_and_bytes() -> None:
    assert await TextResource("data://x", text="x").read() == "x"
    assert await BinaryResource("data://x", data=b"x").read() == b"x"
    function = FunctionResource(uri="data://x", fn=lambda: {"a": 1}, name="x")
    assert await function.read() == '{"a": 1}'
    assert function.fn() == {"a": 1}


async def test_file_is_read_as_its_type_says(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("grün", encoding="utf-8")

    assert await FileResource("file://x", path=path).read() == "grün"
    assert await FileResource("file://x", path=path, mime_type="image/png").read() == "grün".encode()
    assert await FileResource("file://x", path=path, is_binary=True).read() == "grün".encode()
    with pytest.raises(ValueError, match="is not absolute"):
        FileResource("file://x", path="x")


async def test_directory_lists_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.md", "deep/c.txt"):
        (tmp_path / name).touch()

    async def listed(**options: Any) -> list[str]:
        files: list[str] = json.loads(await DirectoryResource("dir://x", path=tmp_path, **options).read())["files"]
        return files

    assert await listed() == ["a.md", "b.txt"]
    assert await listed(recursive=True, pattern="*.txt") == ["b.txt", "deep/c.txt"]
    with pytest.raises(ValueError, match="is not absolute"):
        DirectoryResource("dir://x", path="x")
    with pytest.raises(FileNotFoundError):
        await DirectoryResource("dir://x", path=tmp_path / "absent").read()
    with pytest.raises(NotADirectoryError):
        await DirectoryResource("dir://x", path=tmp_path / "a.md").read()


@pytest.fixture
def site() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; charset=latin-1")
            self.end_headers()
            self.wfile.write("grün".encode("latin-1"))

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


async def test_url_is_fetched(site: str) -> None:
    assert await HttpResource("http-data://x", url=site).read() == "grün"
    with pytest.raises(ValueError, match="is neither http nor https"):
        await HttpResource("http-data://x", url="file:///etc/passwd").read()


# Templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "uri", "parameters"),
    [
        ("users://{id}", "users://7", {"id": "7"}),
        ("users://{id}", "users://", None),
        ("users://{id}", "users://a/b", None),
        ("users://{id}", "xusers://7", None),
        ("users://{id}", "users://7\n", {"id": "7\n"}),
        ("users://{id}/profile", "users://a%20b/profile", {"id": "a b"}),
        ("a://{x}/{y}", "a://1/2", {"x": "1", "y": "2"}),
        ("geo://{where}/now", "geo://48.1,11.5/now", {"where": "48.1,11.5"}),
        ("a://{path*}", "a://b/c/d", {"path": "b/c/d"}),
        ("a://{path*}", "a://b?c#d", {"path": "b?c#d"}),
        ("a://{path*}/end", "a://b/c/end", {"path": "b/c"}),
        ("a://{repo}/{path*}", "a://r/x/y", {"repo": "r", "path": "x/y"}),
        ("a://v{x}.json", "a://v1.json", {"x": "1"}),
        ("a://{x}.{y}", "a://b.c", {"x": "b", "y": "c"}),
        ("a://{+path}", "a://b/c", {"path": "b/c"}),
        ("a://x{?q}", "a://x?q=1", {"q": "1"}),
        ("a://x{?q}", "a://x", {}),
        ("a://{x}-{y*}/z", "a://1-2/3/z", {"x": "1", "y": "2/3"}),
    ],
)
def test_template_matches(template: str, uri: str, parameters: dict[str, str] | None) -> None:
    def fn(**_: str) -> None: ...

    made = ResourceTemplate.__new__(ResourceTemplate)
    from mcpworker.components.template import Matcher

    made._matcher = Matcher(template)
    assert made.matches(uri) == parameters


@pytest.mark.timeout(10)
def test_matching_takes_no_time_whatever_the_uri() -> None:
    from mcpworker.components.template import Matcher

    for template in ("a://{x}-{y}-{z}/end", "a://{path*}/a/{y}/end", "a://{a}/{b}/{c*}/x"):
        for part in ("-", "a/", "/", "x-"):
            assert Matcher(template).match("a://" + part * 3000) is None
    assert Matcher("a://{path*}").match("a://" + "x" * 9000) is None


@pytest.mark.parametrize(
    ("uri", "names"), [("a://b", set()), ("a://{b}", {"b"}), ("a://{b}/{c*}{?d}", {"b", "c", "d"})]
)
def test_parameters_of_a_uri(uri: str, names: set[str]) -> None:
    assert template_parameters(uri) == names


@pytest.mark.parametrize("uri", ["a://{", "a://{}", "a://{x", "a://{x}/{x}", "a://{x y}"])
def test_what_is_no_template_is_refused(server: FastMCP[Any], uri: str) -> None:
    with pytest.raises(ValueError):
        server.add_resource_fn(lambda x: x, uri, name="x")


async def test_parameters_are_coerced_and_defaults_may_be_absent(server: FastMCP[Any]) -> None:
    @server.resource("search://{query}")
    @server.resource("search://{query}/{limit}")
    def search(query: str, limit: int = 3) -> list[Any]:
        return [query, limit]

    assert (await read(server, "search://cats")).text == '["cats", 3]'
    assert (await read(server, "search://cats/5")).text == '["cats", 5]'
    with pytest.raises(MCPError, match=r"(?s)Error reading resource search://cats/many: .*valid integer"):
        await read(server, "search://cats/many")


async def test_plain_uri_goes_before_a_template(server: FastMCP[Any]) -> None:
    @server.resource("a://{x}")
    def template(x: str) -> str:
        return "template"

    server.add_resource(TextResource("a://fixed", text="plain"))

    assert (await read(server, "a://fixed")).text == "plain"
    assert (await read(server, "a://other")).text == "template"


async def test_first_template_that_matches_serves(server: FastMCP[Any]) -> None:
    server.add_resource_fn(lambda x: "first", "a://{x}", name="first")
    server.add_resource_fn(lambda y: "second", "a://{y}", name="second")

    assert (await read(server, "a://z")).text == "first"


@pytest.mark.parametrize(
    ("uri", "parameters", "said"),
    [
        ("a://b", "x", "URI template must contain at least one parameter"),
        ("a://{x}", "x, y", "must be a subset of the required function arguments: "),
        ("a://{x}/{z}", "x", "must be a subset of the function arguments: {'x'}"),
        ("a://{x}/{z}", "x, y=1", "must be a subset of the function arguments: "),
    ],
)
async def test_parameters_that_do_not_fit_are_refused(
    server: FastMCP[Any], uri: str, parameters: str, said: str
) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def fn({parameters}): pass", namespace)

    with pytest.raises(ValueError, match=said):
        server.resource(uri)(namespace["fn"])
    assert await server.get_resource_templates() == {}


async def test_context_reaches_resources_and_templates(server: FastMCP[Any]) -> None:
    @server.resource("a://plain")
    def plain(ctx: Context) -> str:
        return ctx.fastmcp.name

    @server.resource("a://by/{x}")
    async def by(ctx: Context, x: str) -> str:
        return f"{ctx.fastmcp.name} {x}"

    assert (await read(server, "a://plain")).text == "Resources"
    assert (await read(server, "a://by/7")).text == "Resources 7"
    assert set((await server.get_resource_templates())["a://by/{x}"].parameters["properties"]) == {"x"}


@pytest.mark.parametrize("value", ["..", "../x", "%2e%2e/x", "x/../../y", "/etc", "%2Fetc", "C:\\x", "a%00b"])
async def test_parameter_that_would_leave_a_directory_is_refused(server: FastMCP[Any], value: str) -> None:
    server.add_resource_fn(lambda path: path, "a://{path*}", name="x")

    with pytest.raises(MCPError, match=r"'path' holds '..', an absolute path or NUL"):
        await read(server, f"a://{value}")


async def test_foreseen_failure_has_its_text(server: FastMCP[Any]) -> None:
    @server.resource("a://b")
    def fn() -> str:
        raise ResourceError("closed today")

    with pytest.raises(MCPError, match=r"^Error reading resource a://b: closed today$") as caught:
        await read(server, "a://b")
    assert caught.value.error.code == types.INTERNAL_ERROR


async def test_unknown_resource_is_an_invalid_parameter(server: FastMCP[Any]) -> None:
    with pytest.raises(MCPError, match="Unknown resource: a://b") as caught:
        await read(server, "a://b")
    assert caught.value.error.code == types.INVALID_PARAMS
    assert caught.value.error.data == {"uri": "a://b"}

"""The document, "Server Configuration": where settings come from, and what they do."""

import re
from pathlib import Path

import pytest

from support.document import SNIPPETS, run_script, write_script

SHOW = "from fastmcp import FastMCP\nmcp = FastMCP({})\nprint(mcp.settings.port, mcp.settings.log_level)\n"


def test_settings_are_accessible(tmp_path: Path) -> None:
    """'Settings are accessible via mcp.settings' - Output: 8080, "error"."""
    code, errors = run_script(write_script(tmp_path, SNIPPETS["settings"], "mcp.run()"))
    assert (code, errors.splitlines()) == (0, ["8080", "error"])


def test_settings_come_from_the_environment_with_their_prefix(tmp_path: Path) -> None:
    """'set via environment variables (prefixed with FASTMCP_SERVER_)'."""
    script = write_script(tmp_path, SHOW.format(""))
    assert run_script(script, env={"FASTMCP_SERVER_PORT": "8123", "PORT": "1"}) == (0, "8123 INFO\n")
    assert run_script(script, env={"fastmcp_server_port": "8124"}) == (0, "8124 INFO\n")


def test_settings_are_loaded_from_a_dotenv_file(tmp_path: Path) -> None:
    """'or loaded from a .env file'."""
    script = write_script(tmp_path, SHOW.format(""))
    (tmp_path / ".env").write_text("FASTMCP_SERVER_PORT=8200\nFASTMCP_SERVER_LOG_LEVEL=ERROR\nOTHER=1\n")
    assert run_script(script) == (0, "8200 ERROR\n")


def test_the_constructor_counts_more_than_the_environment_and_that_more_than_the_file(tmp_path: Path) -> None:
    """Nearer counts more."""
    (tmp_path / ".env").write_text("FASTMCP_SERVER_PORT=8200\n")
    environment = {"FASTMCP_SERVER_PORT": "8300"}
    assert run_script(write_script(tmp_path, SHOW.format("")), env=environment) == (0, "8300 INFO\n")
    assert run_script(write_script(tmp_path, SHOW.format("port=8400")), env=environment) == (0, "8400 INFO\n")


def test_the_defaults_are_those_of_the_document(tmp_path: Path) -> None:
    """'host: (default: "0.0.0.0")', 'port: (default: 8000)', 'log_level: (default: "INFO")'."""
    script = write_script(
        tmp_path,
        "from fastmcp import FastMCP\nsettings = FastMCP().settings\n"
        "assert (settings.host, settings.port, settings.log_level) == ('0.0.0.0', 8000, 'INFO')\n"
        "for kind in ('tools', 'resources', 'prompts'):\n"
        "    assert getattr(settings, 'on_duplicate_' + kind) == 'warn'",
    )
    assert run_script(script) == (0, "")


KINDS = {
    "tools": ("@mcp.tool()", "Tool already exists: x", "(await client.call_tool('x'))[0].text"),
    "resources": (
        "@mcp.resource('data://x')",
        "Resource already exists: data://x",
        "(await client.read_resource('data://x'))[0].text",
    ),
    "prompts": ("@mcp.prompt()", "Prompt already exists: x", "(await client.get_prompt('x'))[0].content.text"),
}
DUPLICATES = """
import asyncio
from fastmcp import Client, FastMCP

def define(word):
    {decorator}
    def x() -> str:
        return word

async def ask():
    async with Client(mcp) as client:
        return {ask}

for behaviour in ("warn", "replace", "ignore", "error"):
    print("---", behaviour)
    mcp = FastMCP(on_duplicate_{kind}=behaviour)
    for word in ("first", "second"):
        try:
            define(word)
        except ValueError as error:
            print("ValueError:", error)
    print("answer:", asyncio.run(ask()))
"""


@pytest.mark.parametrize("kind", list(KINDS))
def test_duplicates_are_handled_as_the_setting_says(kind: str, tmp_path: Path) -> None:
    """'on_duplicate_tools', 'on_duplicate_resources', 'on_duplicate_prompts'."""
    decorator, text, ask = KINDS[kind]
    code, errors = run_script(write_script(tmp_path, DUPLICATES.format(decorator=decorator, kind=kind, ask=ask)))
    assert code == 0, errors
    said = dict(re.findall(r"^--- (\w+)\n(.*?)(?=^---|\Z)", errors, re.MULTILINE | re.DOTALL))
    assert said["warn"].splitlines()[-1] == "answer: second"
    assert "WARNING" in said["warn"]
    assert text in said["warn"]
    assert said["replace"] == "answer: second\n"
    assert said["ignore"] == "answer: first\n"
    assert said["error"] == f"ValueError: {text}\nanswer: first\n"


def test_a_behaviour_that_there_is_not_is_an_error(tmp_path: Path) -> None:
    """Wrong values are told at construction."""
    code, errors = run_script(
        write_script(tmp_path, "from fastmcp import FastMCP\nFastMCP(on_duplicate_tools='maybe')")
    )
    assert code != 0
    assert "on_duplicate_tools" in errors

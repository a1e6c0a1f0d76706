"""Settings: which source counts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from mcpworker import FastMCP
from mcpworker.settings import ClientSettings, ServerSettings, Settings


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current directory, and none of the variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("FASTMCP_LOG_LEVEL", "FASTMCP_SERVER_LOG_LEVEL", "FASTMCP_SERVER_PORT", "FASTMCP_SERVER_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_defaults_are_the_documented_ones() -> None:
    settings = FastMCP("x").settings

    assert (settings.host, settings.port, settings.log_level) == ("0.0.0.0", 8000, "INFO")
    assert (settings.sse_path, settings.message_path) == ("/sse", "/messages/")
    assert settings.on_duplicate_tools == settings.on_duplicate_resources == settings.on_duplicate_prompts == "warn"
    assert (settings.debug, settings.dependencies, settings.cache_expiration_seconds) == (False, [], 0)


def test_constructor_goes_before_environment_before_file(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    (elsewhere / ".env").write_text("FASTMCP_SERVER_PORT=1\nFASTMCP_SERVER_HOST=file\nFASTMCP_SERVER_DEBUG=true\n")
    assert FastMCP("x").settings.port == 1
    assert FastMCP("x").settings.debug is True

    monkeypatch.setenv("FASTMCP_SERVER_PORT", "2")
    assert FastMCP("x").settings.port == 2
    assert FastMCP("x").settings.host == "file"

    assert FastMCP("x", port=3).settings.port == 3


def test_names_of_variables_have_no_case_and_need_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("fastmcp_server_port", "4")
    monkeypatch.setenv("HOST", "ignored")

    assert (FastMCP("x").settings.port, FastMCP("x").settings.host) == (4, "0.0.0.0")


def test_settings_are_read_when_the_server_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FastMCP("x")
    monkeypatch.setenv("FASTMCP_SERVER_PORT", "5")

    assert server.settings.port == 8000


def test_log_level_of_all_is_the_servers_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMCP_LOG_LEVEL", "ERROR")
    assert FastMCP("x").settings.log_level == Settings().log_level == ClientSettings().log_level == "ERROR"

    monkeypatch.setenv("FASTMCP_SERVER_LOG_LEVEL", "DEBUG")
    assert FastMCP("x").settings.log_level == "DEBUG"


def test_unknown_keys_are_ignored() -> None:
    assert not hasattr(FastMCP("x", nonsense=1).settings, "nonsense")


@pytest.mark.parametrize("wrong", [{"port": "many"}, {"on_duplicate_tools": "explode"}, {"log_level": "loud"}])
def test_impossible_values_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        FastMCP("x", **wrong)
    with pytest.raises(ValueError):
        ServerSettings(**wrong)  # type: ignore[arg-type]


def test_dependencies_are_at_hand() -> None:
    assert FastMCP("x", dependencies=["requests"]).dependencies == ["requests"]

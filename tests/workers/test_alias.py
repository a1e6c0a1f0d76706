"""`import fastmcp` where no such package is installed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mcpworker.launcher.alias import MODULES
from support.worker_clients import LAUNCHER


def run(tmp_path: Path, source: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    argv = [sys.executable, "-W", "error", str(LAUNCHER), *options, str(script)]
    env = {**os.environ, **environment}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env=env, stdin=subprocess.DEVNULL
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stderr.strip()


def test_every_alias_is_the_module_that_it_stands_for_and_no_copy(tmp_path: Path) -> None:
    checks = "\n".join(
        f"assert importlib.import_module({alias!r}) is importlib.import_module({actual!r}), {alias!r}"
        for alias, actual in MODULES.items()
    )
    source = f"""
import importlib, sys
{checks}
for actual in {sorted(set(MODULES.values()))!r}:
    assert sys.modules[actual].__name__ == sys.modules[actual].__spec__.name == actual, actual
print("same")
"""

    assert said(run(tmp_path, source)) == "same"


def test_names_that_scripts_import_are_there(tmp_path: Path) -> None:
    source = """
        import fastmcp
        import fastmcp.server.proxy
        from fastmcp import FastMCP, Context, Client, Image, client, settings
        from fastmcp.client import transports
        from fastmcp.exceptions import (
            ClientError, FastMCPError, InvalidSignature, NotFoundError, PromptError, ResourceError, ToolError,
            ValidationError,
        )
        from fastmcp.prompts import AssistantMessage, Message, Prompt, UserMessage
        from fastmcp.prompts.prompt import Message as SameMessage
        from fastmcp.resources import (
            BinaryResource, DirectoryResource, FileResource, FunctionResource, HttpResource, Resource,
            ResourceTemplate, TextResource,
        )
        from fastmcp.server import FastMCP as SameFastMCP
        from fastmcp.server.context import Context as SameContext
        from fastmcp.server.proxy import FastMCPProxy
        from fastmcp.settings import ServerSettings
        from fastmcp.tools import Tool
        from fastmcp.tools.tool import Tool as SameTool
        from fastmcp.utilities.logging import get_logger
        from fastmcp.utilities.types import Image as SameImage
        import mcpworker

        assert FastMCP is SameFastMCP is mcpworker.FastMCP is fastmcp.FastMCP
        assert (Context, Tool, Image, Message) == (SameContext, SameTool, SameImage, SameMessage)
        assert issubclass(ToolError, FastMCPError) and issubclass(FastMCPProxy, FastMCP)
        print(fastmcp.__version__ == mcpworker.__version__)
        """

    assert said(run(tmp_path, source)) == "True"


def test_what_has_no_counterpart_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "import fastmcp.contrib.magic")

    assert done.returncode == 1
    assert "No module named 'fastmcp.contrib': mcpworker stands in for fastmcp here" in done.stderr


def test_missing_submodule_can_be_caught(tmp_path: Path) -> None:
    source = """
        try:
            from fastmcp.server import http
        except ImportError:
            print("caught")
        """

    assert said(run(tmp_path, source)) == "caught"


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """A directory with another package called fastmcp."""
    package = tmp_path / "elsewhere" / "fastmcp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("FastMCP = 'the installed one'\n")
    return str(package.parent)


def test_installed_fastmcp_is_left_alone(tmp_path: Path, installed: str) -> None:
    source = "import fastmcp; print(fastmcp.FastMCP)"

    assert said(run(tmp_path, source, PYTHONPATH=installed)) == "the installed one"


def test_builtin_goes_before_an_installed_fastmcp(tmp_path: Path, installed: str) -> None:
    source = "import fastmcp; print(fastmcp.FastMCP.__module__)"

    assert said(run(tmp_path, source, "--builtin", PYTHONPATH=installed)) == "mcpworker.server"


def test_standing_in_is_told_once_at_debug_level_only(tmp_path: Path) -> None:
    source = "import fastmcp, fastmcp.client, fastmcp.settings"

    line = "mcpworker: no fastmcp package is installed here; mcpworker stands in for it"
    assert said(run(tmp_path, source, FASTMCP_LOG_LEVEL="DEBUG")) == line
    assert said(run(tmp_path, source)) == ""


def test_importing_mcpworker_imports_no_sdk() -> None:
    source = "import sys, mcpworker; print(sorted({'mcp', 'pydantic', 'anyio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout.strip() == "[]"


def test_names_of_the_package_are_listed_and_unknown_ones_refused() -> None:
    import mcpworker

    assert set(mcpworker.__all__) <= set(dir(mcpworker))
    for name in mcpworker.__all__:
        assert getattr(mcpworker, name) is not None
    with pytest.raises(AttributeError, match="module 'mcpworker' has no attribute 'Nonsense'"):
        _ = mcpworker.Nonsense  # type: ignore[attr-defined]

"""`fastmcp` for scripts, where no such package is installed: its names are modules of `mcpworker`, the same objects."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["AliasFinder", "install"]

MODULES = {
    "fastmcp": "mcpworker",
    "fastmcp.client": "mcpworker.client",
    "fastmcp.client.client": "mcpworker.client.client",
    "fastmcp.client.logging": "mcpworker.client.logging",
    "fastmcp.client.roots": "mcpworker.client.roots",
    "fastmcp.client.sampling": "mcpworker.client.sampling",
    "fastmcp.client.transports": "mcpworker.client.transports",
    "fastmcp.exceptions": "mcpworker.errors",
    "fastmcp.prompts": "mcpworker.components.prompts",
    "fastmcp.prompts.prompt": "mcpworker.components.prompts",
    "fastmcp.resources": "mcpworker.components.resources",
    "fastmcp.resources.resource": "mcpworker.components.resources",
    "fastmcp.resources.template": "mcpworker.components.template",
    "fastmcp.resources.types": "mcpworker.components.resources",
    "fastmcp.server": "mcpworker.server",
    "fastmcp.server.context": "mcpworker.context",
    "fastmcp.server.proxy": "mcpworker.proxy",
    "fastmcp.server.server": "mcpworker.server",
    "fastmcp.settings": "mcpworker.settings",
    "fastmcp.tools": "mcpworker.components.tools",
    "fastmcp.tools.tool": "mcpworker.components.tools",
    "fastmcp.utilities": "mcpworker.media",
    "fastmcp.utilities.logging": "mcpworker.logs",
    "fastmcp.utilities.types": "mcpworker.media",
}
NEEDED = {"mcp": "mcp>=2.3,<3", "pydantic_settings": "pydantic-settings>=2.7"}


def install(builtin: bool = False) -> None:
    """Offer the alias: behind what is installed, or with `builtin` before it."""
    finder = AliasFinder()
    if builtin:
        sys.meta_path.insert(0, finder)
    else:
        sys.meta_path.append(finder)


class AliasFinder:
    """A meta-path finder for `fastmcp` and what is below it."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "importlib.machinery.ModuleSpec | None":
        """The module that stands for `name`; None for all other names.

        Raises:
            ModuleNotFoundError: `mcpworker` cannot work in this interpreter, or has nothing that stands for `name`.
        """
        if name != "fastmcp" and not name.startswith("fastmcp."):
            return None
        if name == "fastmcp":
            _check_interpreter()
            _announce()
        if name not in MODULES:
            raise ModuleNotFoundError(
                f"No module named {name!r}: mcpworker stands in for fastmcp here and has nothing that corresponds; "
                "install fastmcp in the script's interpreter to use it",
                name=name,
            )
        return importlib.machinery.ModuleSpec(name, _AliasLoader(MODULES[name]), is_package=True)


class _AliasLoader(importlib.abc.Loader):
    """Gives out a module that exists under another name."""

    def __init__(self, actual: str) -> None:
        self._actual = actual
        self._spec: object = None

    def create_module(self, spec: "importlib.machinery.ModuleSpec") -> "ModuleType":
        module = importlib.import_module(self._actual)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: "ModuleType") -> None:
        # The import system has put the alias's spec in; the module keeps its own. It counts as a package, because
        # what is a module here may be a package there.
        module.__spec__ = self._spec  # type: ignore[assignment]
        if not hasattr(module, "__path__"):
            module.__path__ = []


def _check_interpreter() -> None:
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if not missing:
        from importlib import metadata

        version = metadata.version("mcp")
        if version.split(".")[0] != "2":
            missing = [f"{NEEDED['mcp']} (there is {version})"]
    if missing:
        raise ModuleNotFoundError(
            f"No module named 'fastmcp', and mcpworker cannot stand in for it: {sys.executable} lacks "
            f"{' and '.join(missing)}; install that, or fastmcp, there",
            name="fastmcp",
        )


def _announce() -> None:
    levels = (os.environ.get("FASTMCP_LOG_LEVEL", ""), os.environ.get("FASTMCP_SERVER_LOG_LEVEL", ""))
    if "DEBUG" in (level.upper() for level in levels):
        sys.stderr.write("mcpworker: no fastmcp package is installed here; mcpworker stands in for it\n")

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

__all__ = ["MODULES", "install"]

MODULES = {
    "fastmcp": "mcpworker",
    "fastmcp.client": "mcpworker.client",
    "fastmcp.client.client": "mcpworker.client.client",
    "fastmcp.client.elicitation": "mcpworker.client.elicitation",
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
    # What is below the alias has to be found before anybody looks into the package's directory, where some of the
    # names are files: they would be loaded a second time.
    sys.meta_path.insert(0, SubmoduleFinder())
    if builtin:
        sys.meta_path.insert(0, PackageFinder())
    else:
        sys.meta_path.append(PackageFinder())


class PackageFinder:
    """A meta-path finder for `fastmcp` itself."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "importlib.machinery.ModuleSpec | None":
        """`mcpworker`, for this one name.

        Raises:
            ModuleNotFoundError: it cannot work in this interpreter.
        """
        if name != "fastmcp":
            return None
        _check_interpreter()
        _announce()
        return _spec(name)


class SubmoduleFinder:
    """A meta-path finder for what is below `fastmcp`, while that is `mcpworker`."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "importlib.machinery.ModuleSpec | None":
        """The module that stands for `name`.

        Raises:
            ModuleNotFoundError: there is none.
        """
        if not name.startswith("fastmcp.") or sys.modules["fastmcp"] is not sys.modules["mcpworker"]:
            return None
        if name not in MODULES:
            raise ModuleNotFoundError(
                f"No module named {name!r}: mcpworker stands in for fastmcp here and has nothing that corresponds; "
                "install fastmcp in the script's interpreter to use it",
                name=name,
            )
        return _spec(name)


def _spec(name: str) -> "importlib.machinery.ModuleSpec":
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
        # The import system has put the alias's spec in, and a path, since what is a module here may be a package
        # there; the module keeps its own spec.
        module.__spec__ = self._spec  # type: ignore[assignment]


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

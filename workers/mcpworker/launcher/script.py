"""A script's own word on what it needs (PEP 723), and `uv run`, which gives it that."""

import os
import re
import sys

__all__ = ["Requirements", "in_uv", "read_requirements"]

# The reference implementation's expression, PEP 723.
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_INSIDE_UV = "MCPWORKER_INSIDE_UV"


class Requirements:
    """What a script asks for: packages, and a Python."""

    def __init__(self, dependencies: "list[str]", python: "str | None") -> None:
        self.dependencies = dependencies
        self.python = python


def read_requirements(path: str) -> "Requirements | None":
    """The script's block; None where it has none.

    Raises:
        ValueError: it has several, or it is no TOML, or of the wrong shape.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        source = file.read()
    if "# /// script" not in source:
        return None
    blocks = [found for found in _BLOCK.finditer(source) if found["type"] == "script"]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise ValueError(f"{path}: more than one script block; PEP 723 allows one")
    import tomllib

    content = "".join(
        line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines(keepends=True)
    )
    try:
        block = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: the script block is no TOML: {error}") from error
    dependencies, python = block.get("dependencies", []), block.get("requires-python")
    if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
        raise ValueError(f"{path}: dependencies of the script block must be a list of strings")
    if python is not None and not isinstance(python, str):
        raise ValueError(f"{path}: requires-python of the script block must be a string")
    return Requirements(dependencies, python)


def in_uv(requirements: Requirements, path: str, launcher: "list[str]") -> "list[str] | None":
    """The command that runs the launcher where the script has what it needs; None where it is run there already.

    Raises:
        ValueError: uv is not installed.
    """
    if os.environ.get(_INSIDE_UV) == path or not (requirements.dependencies or requirements.python):
        return None
    import shutil

    uv = shutil.which("uv")
    if uv is None:
        wanted = ", ".join(requirements.dependencies) or f"Python {requirements.python}"
        raise ValueError(
            f"{path} says in its script block (PEP 723) that it needs {wanted}; running it takes uv, which is not on "
            "PATH: install uv, or take the block out and name an interpreter that has what it needs"
        )
    os.environ[_INSIDE_UV] = path
    command = [uv, "run", "--quiet", "--no-project"]
    if requirements.python:
        command += ["--python", requirements.python]
    for dependency in requirements.dependencies:
        command += ["--with", dependency]
    return [*command, "--", "python", *launcher, *sys.argv[1:]]

"""Run by path: `python …/mcpworker/launcher/__main__.py [--builtin] FILE[:OBJECT] [ARGS]`.

Under an interpreter that has no `mcpworker` installed, the package that this file belongs to becomes it - that one
package only: what else is installed beside it is for another interpreter.
"""

import importlib.util
import os
import sys


def _become_mcpworker() -> None:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location(
        "mcpworker", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mcpworker"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    if not __package__:
        # Python put this directory first; the script's own takes its place later.
        if not sys.flags.safe_path:
            sys.path[0] = ""
        _become_mcpworker()
    from mcpworker.launcher.start import main

    sys.exit(main(sys.argv[1:]))

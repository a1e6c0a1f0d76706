"""The console scripts: which program is meant is seen before anything is imported for it."""

from __future__ import annotations

import sys


def mcpctl() -> int:
    """`mcpctl`: the operator's tool; `mcpctl connect` is the clients' and loads nothing of the rest."""
    if sys.argv[1:2] == ["connect"]:
        from mcpd.cli.connect import main

        return main(sys.argv[2:])
    from mcpd.cli.mcpctl import app

    app()
    return 0


def mcpd() -> int:
    """`mcpd`: the daemon."""
    from mcpd.cli.mcpd import app

    app()
    return 0

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
    """`mcpd`: the daemon, which is not to wait for what only other commands need."""
    if sys.argv[1:2] == ["start"]:
        import os

        from mcpd.cli import start

        if (options := start.options_of(sys.argv[2:], os.environ)) is not None:
            return start.main(options)
    from mcpd.cli.mcpd import app

    app()
    return 0

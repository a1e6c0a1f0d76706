"""Imports uvicorn without its command line, which would bring click, multiprocessing and watchfiles into the daemon.

That is a quarter of the front door's start. Whoever asks uvicorn for its command line later gets it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

_NAME: Final = "uvicorn.main"


class _StandIn(ModuleType):
    """What `uvicorn/__init__.py` takes from `uvicorn.main`, imported when it is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "Server":
            return importlib.import_module("uvicorn.server").Server
        if name in ("main", "run"):
            return lambda *given, **named: getattr(importlib.import_module(_NAME), name)(*given, **named)
        raise AttributeError(name)


def import_uvicorn() -> None:
    """To be called before anything else imports it; if that is too late, nothing happens."""
    if "uvicorn" in sys.modules or _NAME in sys.modules:
        return
    sys.modules[_NAME] = _StandIn(_NAME)
    try:
        importlib.import_module("uvicorn")
    finally:
        del sys.modules[_NAME]

"""What is told of servers that come to run under `strict`: what they do not have there, and how it is granted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Final

HINT: Final = (
    "under `strict`: no network, and of your files only its own code. To grant more, say so in its table:\n"
    '    sandbox = { profile = "network", allow = ["api.example.com:443"] }\n'
    '    sandbox = { profile = "filesystem", read = ["/some/directory"] }\n'
)


def named_directories(words: Sequence[str], home: str) -> Iterator[str]:
    """Directories among the arguments of a server; most that name one are to work in it."""
    for word in words:
        path = os.path.expanduser(word.partition("=")[2] if word.startswith("--") and "=" in word else word)
        path = os.path.normpath(path) if path.startswith("/") else ""
        if path and path not in ("/", home) and os.path.isdir(path):
            yield os.path.realpath(path)


def grant_of(directory: str) -> str:
    """The note for one such directory."""
    table = f'sandbox = {{ profile = "filesystem", write = [{json.dumps(directory)}] }}'
    return f"it names {directory}, which it does not see under `strict`; to let it: {table} (or read)"

"""Secrets as files for servers that see the host's files: each server's in a directory of the runtime directory."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from mcpd.sandbox.policy import Identity

FOLDER: Final = "secret-files"


class SecretFiles:
    """One for a daemon; what an earlier one that was killed left there is removed."""

    def __init__(self, runtime_dir: Path) -> None:
        self._folder = runtime_dir / FOLDER
        shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, server: str, name: str, content: bytes, user: Identity | None) -> str:
        """The path of the file, which only `user` may read, or we; what runs keeps the one that it has open."""
        folder = self._folder / server
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        aside = folder / f".{name}.{secrets.token_hex(8)}"
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            if user is not None:
                os.fchown(file.fileno(), user.uid, user.gid)
        aside.replace(folder / name)
        return str(folder / name)

    def remove(self, server: str) -> None:
        """Nothing of the server runs any more."""
        shutil.rmtree(self._folder / server, ignore_errors=True)

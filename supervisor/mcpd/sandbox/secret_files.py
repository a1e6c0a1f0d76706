"""Where servers that see the host's files find their secrets: in a directory of their own in the runtime directory.

With bubblewrap it is empty here: only the server sees a file system in memory over it. Without, the files lie there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

FOLDER: Final = "secret-files"


class SecretFiles:
    """One for a daemon; what an earlier one that was killed left there is removed."""

    def __init__(self, runtime_dir: Path) -> None:
        self._folder = runtime_dir / FOLDER
        shutil.rmtree(self._folder, ignore_errors=True)

    def place(self, server: str) -> Path:
        """The directory, for us alone."""
        folder = self._folder / server
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def write(self, server: str, name: str, content: bytes) -> None:
        """Put a file there that only we can read; what runs keeps the one that it has open."""
        folder = self.place(server)
        aside = folder / f".{name}.{secrets.token_hex(8)}"
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
        aside.replace(folder / name)

    def remove(self, server: str) -> None:
        """Nothing of the server runs any more."""
        shutil.rmtree(self._folder / server, ignore_errors=True)

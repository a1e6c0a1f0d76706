"""Servers' secrets on their way from where they are kept to a process that is being started."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from mcpd.config.registry import Registry, ServerSpec
from mcpd.config.secrets import Resolved, resolve, uses_secrets
from mcpd.errors import ConfigError, SpawnError

FOLDER: Final = "secret-files"


class Vault:
    """Holds values only between `fetch` and `take`; of those in use it keeps a keyed digest, which tells when they have
    changed. Secrets are fetched in a thread: a command may take its time."""

    def __init__(self, runtime_dir: Path) -> None:
        self._folder = runtime_dir / FOLDER
        self._key = secrets.token_bytes(32)
        self._fetched: dict[str, list[tuple[ServerSpec, Resolved]]] = {}
        self._in_use: dict[str, bytes] = {}
        shutil.rmtree(self._folder, ignore_errors=True)  # of a daemon that was killed

    async def fetch(self, spec: ServerSpec, registry: Registry) -> None:
        """Have the secrets of a server that is about to be started. Raises SpawnError."""
        if uses_secrets(spec):
            try:
                found = await asyncio.to_thread(resolve, spec, registry)
            except ConfigError as problem:
                raise SpawnError("exec", str(problem)) from None
            waiting = self._fetched.setdefault(spec.name, [])
            waiting[:] = [*waiting[-63:], (spec, found)]

    def take(self, spec: ServerSpec, registry: Registry) -> Resolved:
        """What was fetched for it; only once. Raises ConfigError if its secrets are fetched here, and cannot be had."""
        waiting = self._fetched.pop(spec.name, [])
        mine = [found for wanted, found in waiting if wanted is spec]
        if len(mine) > 1:  # other instances of it are about to be started
            self._fetched[spec.name] = [(spec, found) for found in mine[1:]]
        found = mine[0] if mine else resolve(spec, registry)
        if found.secrets:
            self._in_use[spec.name] = self._mark(found)
        return found

    async def rotated(self, registry: Registry, among: Collection[str]) -> tuple[list[str], list[str]]:
        """Which of these servers run with secrets that are others now; what is wrong with those that cannot be had."""
        changed: list[str] = []
        problems: list[str] = []
        for name in among:
            spec = registry.servers[name]
            if name not in self._in_use or not uses_secrets(spec):
                continue
            try:
                found = await asyncio.to_thread(resolve, spec, registry)
            except ConfigError as problem:
                problems += [f"{one}; the server goes on with what it was started with" for one in problem.problems]
            else:
                if not hmac.compare_digest(self._mark(found), self._in_use[name]):
                    changed.append(name)
        return changed, problems

    def place(self, server: str, name: str, content: str) -> str:
        """The path of a private file with a secret, for a server that sees the host's files. Raises SpawnError."""
        if os.geteuid() == 0:  # it runs under a uid of its own, which may not come here
            raise SpawnError(
                "sandbox",
                f"servers.{server}: under root an unsandboxed server cannot be given a secret_file; "
                f"sandbox it, or use {{ secret = {name!r} }}",
            )
        folder = self._folder / server
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        aside = folder / f".{name}.{secrets.token_hex(8)}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        aside.replace(path)
        return str(path)

    def clear(self, server: str) -> None:
        """Nothing of a server runs any more: its files go."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder / server)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._fetched.clear()

    def _mark(self, found: Resolved) -> bytes:
        parts = [f"{name}={value}" for name, value in sorted(found.env.items())]
        parts += [f"{name}@{file}={value}" for name, (file, value) in sorted(found.files.items())]
        return hmac.digest(self._key, "\0".join(parts).encode(), hashlib.sha256)

"""Servers' secrets on their way from where they are kept to a process that is being started."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets as random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcpd.config import secrets
from mcpd.config.registry import Registry, SecretRef, ServerSpec
from mcpd.config.secrets import LARGEST_SECRET, Absent, Unusable
from mcpd.config.settings import DaemonSettings
from mcpd.errors import Problem, SpawnError
from mcpd.process.ask import Answer, ask
from mcpd.process.mask import Mask
from mcpd.sandbox.policy import BASE_VARIABLES

PATIENCE: Final = 30.0
"""So long a command may take to print a secret, and twice as long a reload to have all of them."""
AT_A_TIME: Final = 8
SHOWN: Final = 200
VARIABLES: Final = frozenset(
    (*BASE_VARIABLES, "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
)
"""What a command gets of the daemon's environment; and LC_*."""

Marks = Mapping[str, bytes]
"""Secret -> what tells whether its value is another by now, without being it."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What a server is started with, secrets filled in; `repr` shows none of it."""

    env: Mapping[str, str] = field(repr=False)
    files: Mapping[str, tuple[str, bytes]] = field(repr=False)
    """Variable -> (name, content) of secrets that are to be files, their paths the variables' values."""
    mask: Mask = field(repr=False)
    marks: Marks = field(repr=False)


class NoSecrets(SpawnError):
    """A server is not started without its secrets."""


class _Silent(Unusable):
    """Who was asked for it did not give it; that may be otherwise soon."""


class Vault:
    """Fetches secrets, and keeps none: an instance remembers `marks` of what it was given, keyed with a random number
    of this daemon's."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ`: the daemon's own, of which commands get a few variables."""
        self._environ = {key: value for key, value in environ.items() if key in VARIABLES or key.startswith("LC_")}
        self._key = random.token_bytes(32)
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def fetch(self, spec: ServerSpec, settings: DaemonSettings) -> Handover:
        """What a server that is about to be started needs.

        Raises NoSecrets with each that cannot be had: `resources` if only who was asked failed, which is worth another
        try.
        """
        found = await self._look_up({value.name for value in secrets.wanted(spec).values()}, settings)
        filled = self._fill_in(spec, found)
        if isinstance(filled, Handover):
            return filled
        errors = [error for error in found.values() if isinstance(error, Unusable)]
        may_pass = errors and all(isinstance(error, _Silent) for error in errors)
        raise NoSecrets("resources" if may_pass else "exec", "\n".join(map(str, filled)))

    async def rotated(
        self, registry: Registry, given: Mapping[str, Sequence[Marks]]
    ) -> tuple[dict[str, tuple[str, ...]], list[str]]:
        """Which servers have been given secrets that are others now, and which; what is wrong with those that cannot be
        had any more. `given`: the marks of the servers' instances; of one that could not be given its secrets, none."""
        specs = [registry.servers[name] for name, marks in given.items() if marks]
        names = {value.name for spec in specs for value in secrets.wanted(spec).values()}
        try:
            async with asyncio.timeout(2 * PATIENCE):
                found = await self._look_up(names, registry.daemon)
        except TimeoutError:
            return {}, [f"secrets were not fetched within {2 * PATIENCE:g} s, so none is known to have changed"]
        changed: dict[str, tuple[str, ...]] = {}
        problems: list[str] = []
        for spec in specs:
            now, before = self._fill_in(spec, found), given[spec.name]
            if isinstance(now, Handover):
                others = {name for name, mark in now.marks.items() if any(one.get(name) != mark for one in before)}
                changed |= {spec.name: tuple(sorted(others))} if others else {}
            elif any(before):
                problems += [f"{problem}; the server goes on with what it was started with" for problem in now]
        return changed, problems

    def _fill_in(self, spec: ServerSpec, found: Mapping[str, bytes | Unusable]) -> Handover | list[Problem]:
        env: dict[str, str] = {}
        files: dict[str, tuple[str, bytes]] = {}
        values: dict[str, bytes] = {}
        problems: list[Problem] = []
        for variable, value in spec.env.items():
            if isinstance(value, str):
                env[variable] = value
                continue
            try:
                content = found[value.name]
                if isinstance(content, Unusable):
                    raise content
                values[value.name] = content
                if isinstance(value, SecretRef):
                    env[variable] = secrets.as_text(content, value.name)
                else:
                    files[variable] = (value.name, content)
            except Unusable as error:
                problems.append(Problem(None, None, f"servers.{spec.name}.env.{variable}", str(error), error.remedy))
        return problems or Handover(env, files, Mask(values.values()), self._marks(values))

    def _marks(self, values: Mapping[str, bytes]) -> Marks:
        return {name: hmac.digest(self._key, value, hashlib.sha256) for name, value in values.items()}

    # -- Where they are kept -----------------------------------------------------------------------------------------

    async def _look_up(self, names: Collection[str], settings: DaemonSettings) -> dict[str, bytes | Unusable]:
        """Each secret, or why it cannot be had."""
        found = await asyncio.gather(*(self._find(name, settings) for name in names))
        return dict(zip(names, found, strict=True))

    async def _find(self, name: str, settings: DaemonSettings) -> bytes | Unusable:
        try:
            return secrets.read(name, settings.secrets_dir)
        except Absent as error:
            if command := secrets.command_for(name, settings):
                service = settings.secret_keyring
                by_hand = f"keyring get {service} {name}" if service else f"daemon.secret_command for {name!r}"
                whom = "the keyring" if service else "secret_command"
                return await self._ask(name, command, whom, f"try {by_hand} by hand, as mcpd's user")
            return error
        except Unusable as error:
            return error

    async def _ask(self, name: str, command: Sequence[str], whom: str, by_hand: str) -> bytes | Unusable:
        """What a command prints. What it says of a failure is shown, but for what it has printed already."""
        try:
            async with self._turns:
                answer = await ask(command, self._environ, patience=PATIENCE, most=LARGEST_SECRET)
        except TimeoutError:
            remedy = "it cannot ask anybody; unlock what it needs beforehand"
            return _Silent(f"{whom} did not give the secret {name!r} within {PATIENCE:g} s", remedy)
        except OSError as error:
            return _Silent(f"{whom} cannot be asked for the secret {name!r}: {error.strerror}: {command[0]}", by_hand)
        if answer.code is None:
            return Unusable(f"{whom} printed over 64 KiB for the secret {name!r}", by_hand)
        if answer.code:
            return _Silent(f"{whom} did not give the secret {name!r}: {_failure(answer)}", by_hand)
        if not answer.output.strip():
            return _Silent(f"{whom} printed nothing for the secret {name!r}", by_hand)
        return answer.output


def _failure(answer: Answer) -> str:
    code = answer.code or 0
    how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
    shown = Mask([answer.output]).apply(answer.complaint).decode("utf-8", "replace")
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    return f"{how}: {lines[-1][:SHOWN]}" if lines else how

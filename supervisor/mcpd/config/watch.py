"""Notice that the files of a registry were changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from mcpd.config.documents import FRAGMENTS

QUIET: Final = 200  # milliseconds without a change after which a change counts as over
LONGEST: Final = 1_600  # milliseconds after which it counts even if more comes
LOOK_EVERY: Final = 5_000  # milliseconds: what brings no event (a network's file system) is seen by looking

Identity = tuple[int, int, int, int]


async def changes(path: Path) -> AsyncIterator[None]:
    """One None after each change of the registry at `path` or of a file of its servers.d, once it seems over.

    By content of directories and identity of files, not by names in events: links that are pointed elsewhere count,
    and other files beside the registry do not. Raises OSError if it cannot be watched.
    """
    import watchfiles  # 3 MiB, and needed by few

    seen = identities(path)
    while True:
        folders = _folders(path)
        watching = watchfiles.awatch(
            *folders,
            watch_filter=None,
            debounce=LONGEST,
            step=QUIET,
            rust_timeout=LOOK_EVERY,
            yield_on_timeout=True,
            recursive=False,
        )
        try:
            async with contextlib.aclosing(watching):
                async for _ in watching:
                    now = identities(path)
                    if now != seen:
                        seen = now
                        yield None
                    if _folders(path) != folders:
                        break
        except RuntimeError as error:  # what its native half calls an error of its own
            raise OSError(str(error)) from None


def identities(path: Path) -> dict[Path, Identity | None]:
    """What each file of the registry is at this moment; None for one that cannot be looked at."""
    found: dict[Path, Identity | None] = {}
    fragments: list[Path] = []
    with contextlib.suppress(OSError):
        fragments = [one for one in (path.parent / FRAGMENTS).iterdir() if one.suffix == ".toml" and one.name[0] != "."]
    for file in (path, *fragments):
        found[file] = None
        with contextlib.suppress(OSError):
            status = os.stat(file)
            found[file] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def _folders(path: Path) -> tuple[Path, ...]:
    """The directories in which files, or links on the way to them, stand."""
    files = [path, *identities(path)]
    folders = {one.parent for file in files for one in (file, Path(os.path.realpath(file)))}
    there = {one for one in {*folders, path.parent / FRAGMENTS} if one.is_dir()}
    return tuple(sorted({path.parent, *there}))

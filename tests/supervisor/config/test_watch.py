"""Changes of a registry's files are noticed, however they are made; changes of other files are not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mcpd.config import watch

DEADLINE = 10.0


def rewrite(path: Path) -> None:
    path.write_text(path.read_text() + "# more\n")


def rename(path: Path) -> None:
    aside = path.with_name(".aside")
    aside.write_text("# new\n")
    os.replace(aside, path)


def add_fragment(path: Path) -> None:
    (path.parent / "servers.d").mkdir(exist_ok=True)
    (path.parent / "servers.d" / "a.toml").write_text("# a\n")


def change_fragment(path: Path) -> None:
    (path.parent / "servers.d" / "a.toml").write_text("# changed\n")


def remove_fragment(path: Path) -> None:
    (path.parent / "servers.d" / "a.toml").unlink()


async def next_change(changes: AsyncIterator[None], act: Callable[[], None]) -> None:
    """Do something, and return when it was noticed."""
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)  # the watch has begun
    act()
    async with asyncio.timeout(DEADLINE):
        await waiting


@pytest.mark.anyio
async def test_every_kind_of_change_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text("")
    changes = watch.changes(path)

    for change in (rewrite, rename, add_fragment, change_fragment, remove_fragment):
        await next_change(changes, lambda change=change: change(path))  # type: ignore[misc]

    await changes.aclose()  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_file_behind_a_link_is_watched(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "etc").mkdir()
    real, path = tmp_path / "real" / "x.toml", tmp_path / "etc" / "mcpd.toml"
    real.write_text("")
    path.symlink_to(real)
    changes = watch.changes(path)

    await next_change(changes, lambda: real.write_text("# changed\n"))  # type: ignore[arg-type,return-value]

    await changes.aclose()  # type: ignore[attr-defined]


def test_other_files_are_none_of_its_business(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text("")
    add_fragment(path)
    before = watch.identities(path)

    (tmp_path / "other.toml").write_text("x")
    (tmp_path / "servers.d" / ".hidden.toml").write_text("x")
    (tmp_path / "servers.d" / "a.toml.bak").write_text("x")

    assert watch.identities(path) == before
    path.unlink()
    assert watch.identities(path)[path] is None


@pytest.mark.anyio
async def test_directory_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await anext(watch.changes(tmp_path / "gone" / "mcpd.toml"))

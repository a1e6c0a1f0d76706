"""What keeps a process from being started, and that nothing is left of the attempt."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from mcpd.errors import SpawnError
from mcpd.process.launch import spawn
from mcpd.process.stderr import StderrLog
from support.processes import Recorder, household, launch_plan, open_descriptors, script

pytestmark = pytest.mark.anyio


def program(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


async def test_what_cannot_be_executed_is_an_exec_error(tmp_path: Path, contained: bool) -> None:
    cases = {
        "/no/such/program": "no such file",
        "no-such-program": "not found on PATH",
        str(tmp_path): "not a file",
        program(tmp_path / "plain", "text", 0o644): "not executable",
        program(tmp_path / "shebang", "#!/no/such/interpreter -x\n"): "its interpreter /no/such/interpreter",
    }
    async with household(tmp_path, contained=contained) as home:
        descriptors = open_descriptors()
        for command, message in cases.items():
            with pytest.raises(SpawnError, match=message) as caught:
                home.spawn_plan(launch_plan(command, contained=contained))
            assert caught.value.result == "exec"
        with pytest.raises(SpawnError, match="no such directory") as caught:
            home.spawn_plan(launch_plan("/bin/true", contained=contained, cwd="/no/such/directory"))
        assert caught.value.result == "exec"
        for log in home.logs[1:]:
            log.close()
        assert open_descriptors() == descriptors


async def test_running_out_of_descriptors_is_an_error_that_leaks_none(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        planned = launch_plan(*script("echo.py"), contained=contained)
        log = home.logs[0]
        log.note("open")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        tight = (512, before[1])
        filler: list[int] = []
        refusals = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, tight)
            with contextlib.suppress(OSError):
                while True:
                    filler.append(os.open("/dev/null", os.O_RDONLY))
            while True:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                descriptors = open_descriptors()
                resource.setrlimit(resource.RLIMIT_NOFILE, tight)
                try:
                    child = spawn(planned, Recorder(), log)
                except SpawnError as error:
                    refusals.append(error.result)
                else:
                    home.started.append(child)
                    break
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                assert open_descriptors() == descriptors
                os.close(filler.pop())
        finally:
            for fd in filler:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert len(refusals) > 8
        assert set(refusals) == {"resources"}


async def test_missing_sandbox_tool_is_a_sandbox_error(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        planned = launch_plan(*script("echo.py"))

        with pytest.raises(SpawnError, match="/no/bwrap") as caught:
            home.spawn_plan(replace(planned, wrapper=("/no/bwrap", *planned.wrapper[1:])))
        assert caught.value.result == "sandbox"


async def test_sandbox_that_fails_is_told_from_a_server_that_ends(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        planned = launch_plan(*script("ends_with.py", "1"))
        broken = replace(planned, wrapper=(*planned.wrapper, "--bind", "/no/such/directory", "/mnt"))

        _, heard = home.spawn_plan(broken)
        status = await heard.until_exit()
        assert status.result == "sandbox"
        assert "/no/such/directory" in str(status)
        _, heard = home.spawn_plan(planned)
        assert (await heard.until_exit()).result == "exit-code"


async def test_exec_errors_after_the_check_are_exec_errors_too(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        planned = replace(launch_plan("/no/such/program", contained=contained), host_files=False)

        _, heard = home.spawn_plan(planned)
        status = await heard.until_exit()
        assert status.result == "exec"
        assert "/no/such/program" in str(status)


async def test_server_that_speaks_like_a_failed_exec_is_believed_only_with_its_code(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        _, heard = home.spawn_plan(launch_plan("/bin/sh", "-c", "exit 127"))

        assert (await heard.until_exit()).result == "exit-code"


async def test_descriptors_from_before_are_not_inherited(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        leaky = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(leaky, True)
        try:
            _, heard = home.spawn("shows_itself.py")
            (line,) = await heard.until_frames(1)
        finally:
            os.close(leaky)
        assert b'"fds": [0, 1, 2]' in line


async def test_start_in_another_thread_is_refused(tmp_path: Path) -> None:
    log = StderrLog(tmp_path / "log")
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.get_running_loop().run_in_executor(None, spawn, launch_plan("/bin/true"), Recorder(), log)

"""From entries to plans: values in, values out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mcpd.config.profiles import effective
from mcpd.config.registry import SandboxSpec, Script, ServerSpec
from mcpd.errors import SpawnError
from mcpd.sandbox.policy import COOKIE, DEFAULT_PATH, Identity, Premises, SandboxFacts, command, plan

CAPABLE = SandboxFacts("/usr/bin/bwrap", "0.8.0", "")
BARE = SandboxFacts(None, "", "bubblewrap is not installed")


def spec(**keys: object) -> ServerSpec:
    bare = {"sandbox": SandboxSpec(profile="unsandboxed")}
    given = {"name": "time", "command": ("/bin/server", "-v"), "cwd": Path("/srv"), **bare, **keys}
    return ServerSpec.model_validate({key: value for key, value in given.items() if value is not None})


def test_unsandboxed_server_has_a_pid_namespace_of_its_own() -> None:
    made = plan(spec(args=("--fast",)), {"TZ": "UTC"}, CAPABLE, base={}, cookie="c")

    assert made.argv == ("/bin/server", "-v", "--fast")
    assert made.wrapper == (
        *("/usr/bin/bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--die-with-parent"),
        *("--chdir", "/srv"),
    )
    assert made.env == {"PATH": DEFAULT_PATH, "TZ": "UTC", COOKIE: "c"}
    assert (made.isolation, made.host_files) == ("unsandboxed", True)


def test_without_bubblewrap_it_is_not_contained() -> None:
    made = plan(spec(), {}, BARE, base={}, cookie="c")

    assert made.wrapper == ()
    assert made.isolation == "not contained"


def test_profile_that_cannot_be_given_is_refused() -> None:
    with pytest.raises(SpawnError, match=r"servers\.time\.sandbox\.profile: 'strict'") as caught:
        plan(spec(sandbox=SandboxSpec(profile="strict")), {}, CAPABLE, base={}, cookie="c")
    assert caught.value.result == "sandbox"


def test_environment_is_only_what_is_named() -> None:
    base = {
        "PATH": "/opt/bin",
        "HOME": "/home/me",
        "LC_TIME": "C",
        "AWS_SECRET_ACCESS_KEY": "daemon's own",
        "MCPD_CONFIG": "/etc/mcpd.toml",
        "DISPLAY": ":0",
        "TZ": "CET",
    }
    box = SandboxSpec(profile="unsandboxed", env_pass=("DISPLAY",), env={"TZ": "EET", "A": "box"})
    made = plan(spec(sandbox=box), {"TZ": "UTC"}, CAPABLE, base=base, cookie="c")

    assert made.env == {
        "PATH": "/opt/bin",
        "HOME": "/home/me",
        "LC_TIME": "C",
        "DISPLAY": ":0",
        "A": "box",
        "TZ": "UTC",
        COOKIE: "c",
    }


def test_uid_of_its_own_has_a_name() -> None:
    rules = effective(SandboxSpec(profile="unsandboxed"), {})
    somebody = Premises(rules=rules, user=Identity(61184, 61184))
    base = {"USER": "root", "LOGNAME": "root"}

    bare = spec(sandbox=SandboxSpec(profile="unsandboxed"))
    made = plan(bare, {}, replace(CAPABLE, setpriv="/bin/setpriv"), base=base, cookie="c", premises=somebody)

    assert (made.env["USER"], made.env["LOGNAME"]) == ("mcp", "mcp")


def test_cookie_cannot_be_overridden() -> None:
    assert plan(spec(), {COOKIE: "forged"}, CAPABLE, base={}, cookie="c").env[COOKIE] == "c"


@pytest.mark.parametrize(
    ("script", "launcher", "expected"),
    [
        (Script(file=Path("/s/a.py")), None, (sys.executable, "/s/a.py", "-x")),
        (Script(file=Path("/s/a.py")), "/l/run.py", (sys.executable, "/l/run.py", "/s/a.py", "-x")),
        (Script(file=Path("/s/a.py"), object="app"), "/l/run.py", (sys.executable, "/l/run.py", "/s/a.py:app", "-x")),
    ],
)
def test_script_is_run_by_the_launcher(script: Script, launcher: str | None, expected: tuple[str, ...]) -> None:
    assert command(spec(command=None, script=script, args=("-x",)), launcher) == expected


def test_what_cannot_be_run_is_refused() -> None:
    named = spec(command=None, script=Script(file=Path("/s/a.py"), object="app"))
    with pytest.raises(SpawnError, match="launcher"):
        command(named, None)
    with pytest.raises(SpawnError, match="nothing to execute"):
        command(spec(command=None, package="npm:x@1.0.0"), None)

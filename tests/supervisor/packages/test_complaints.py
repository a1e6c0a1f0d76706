"""What installers say at the end, as they said it: whose turn it is, and whether to try again."""

from __future__ import annotations

import pytest

from mcpd.config.registry import Package
from mcpd.packages.complaints import explain, last_words

NPM, PYPI = Package.parse("npm:@x/y@1.2.3"), Package.parse("pypi:x==1.0")

NPM_VERSION = """npm http fetch GET 200 /@x%2fy 33ms (cache miss)
npm error code ETARGET
npm error notarget No matching version found for @x/y@1.2.3.
npm error notarget In most cases you or one of your dependencies are requesting
npm error A complete log of this run can be found in: /home/mcp/_logs/debug-0.log"""
NPM_REFUSED = """npm error code ECONNREFUSED
npm error syscall connect
npm error FetchError: request to http://127.0.0.1:9/@x%2fy failed, reason: connect ECONNREFUSED 127.0.0.1:9
npm error     at ClientRequest.<anonymous> (/usr/lib/index.js:130:14)
npm error If you are behind a proxy, please make sure that the 'proxy' config is set properly."""
PIP_REFUSED = """WARNING: Retrying (total=0) after connection broken by 'NewConnectionError('Connection refused')'
ERROR: Could not find a version that satisfies the requirement x==1.0 (from versions: none)
ERROR: No matching distribution found for x==1.0"""
UV_VERSION = """error: No solution found when resolving dependencies
  cause: Because there is no version of x==1.0 and you require x==1.0, your requirements are unsatisfiable."""
UV_BUILD = "hint: Wheels are required for `x` because building from source is disabled for all packages"


@pytest.mark.parametrize(
    ("package", "text", "result", "told"),
    [
        (NPM, NPM_VERSION, "exec", "No matching version found for @x/y@1.2.3.; is there such a package"),
        (NPM, NPM_VERSION, "exec", "`npm view @x/y versions` tells"),
        (NPM, NPM_REFUSED, "resources", "is the network up, and npm configured"),
        (NPM, "npm error code ENOSPC", "resources", "make room below daemon.state_dir"),
        (PYPI, PIP_REFUSED, "resources", "pip or uv configured for it"),
        (PYPI, UV_VERSION, "exec", "`pip index versions x` tells"),
        (PYPI, UV_BUILD, "exec", "set install_scripts = true"),
        (PYPI, "The virtual environment was not created: ensurepip is not available", "exec", "python3-venv"),
        (PYPI, "boom", "exec", "boom; its whole output is in the server's log"),
        (PYPI, "", "exec", "(exit code 1): it said nothing"),
    ],
)
def test_cause_is_told_with_its_remedy(package: Package, text: str, result: str, told: str) -> None:
    error = explain(package, text.splitlines(), "exit code 1")

    assert told in str(error)
    assert str(error).startswith(f"{package} could not be installed (exit code 1): ")
    assert error.result == result


def test_last_words_leave_chatter_out() -> None:
    assert last_words(["\x1b[31mfirst\x1b[0m", "npm http fetch", "npm warn old", "", "last"]) == "first; last"
    assert last_words(["npm warn old"]) == "npm warn old"
    assert last_words([]) == ""
    assert len(last_words(["x" * 1000])) == 300

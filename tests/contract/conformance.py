"""Run the official conformance suite against the server under test, directly and through mcpd (`make conformance`).

Four blocks: the program itself over HTTP; through mcpd with an instance for each era; with one instance whose era mcpd
finds out; with a child that knows only the handshake era. Each block prints what failed, and why, the scenarios that
are run but not scored, and a closing line. The exit code is 0 if each block reaches what is expected of it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.daemon import PEERS, Daemon, python_server

HERE = Path(__file__).resolve().parent
EVERYTHING = HERE / "everything.py"
SUITE = PEERS / "conformance" / "node_modules"
NODE = SUITE / ".bin" / "node"
HANDSHAKE, PER_REQUEST = "2025-11-25", "2026-07-28"
RUN_LIMIT = 300.0  # seconds for all scenarios of a revision: some 60 of at most 30 s each, most of them in milliseconds
REASON_LIMIT = 300  # characters of a reason that are printed


@dataclass(frozen=True)
class Block:
    """One way of running the suite. `keys` is None for the program itself; `wanted` is what has to pass."""

    name: str
    title: str
    keys: Mapping[str, str] | None
    args: tuple[str, ...]
    wanted: Mapping[str, int]


BLOCKS = (
    Block("direct", "the server directly over HTTP", None, ("--http",), {HANDSHAKE: 30, PER_REQUEST: 37}),
    Block("both", 'through mcpd, era = "both"', {"era": '"both"'}, (), {HANDSHAKE: 30, PER_REQUEST: 37}),
    Block("auto", 'through mcpd, era = "auto"', {"era": '"auto"'}, (), {HANDSHAKE: 30, PER_REQUEST: 33}),
    Block(
        "handshake-only",
        'through mcpd, a child of the handshake era alone, sharing = "session"',
        # A shared child is never told of a client's roots, and two scenarios are about them.
        {"era": '"auto"', "sharing": '"session"'},
        ("--handshake-only",),
        {HANDSHAKE: 30, PER_REQUEST: 36},
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one scenario. `unscored` is the suite's reason for not counting it."""

    scenario: str
    unscored: str | None
    failures: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True)
class Report:
    """All scenarios of one revision in one block."""

    revision: str
    outcomes: tuple[Outcome, ...]

    @property
    def scored(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.unscored is None]

    @property
    def unscored(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.unscored is not None]

    @property
    def passed(self) -> int:
        return sum(outcome.passed for outcome in self.scored)

    @property
    def failed(self) -> list[str]:
        return [outcome.scenario for outcome in self.scored if not outcome.passed]


def suite(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the suite's own command with node 22, whatever node the machine has."""
    program = SUITE / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    if not program.exists():
        raise SystemExit(f"{program} is missing: run `scripts/peers conformance`")
    env = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        [NODE, program, *args], capture_output=True, text=True, env=env, timeout=RUN_LIMIT, check=False
    )


def requirements(revision: str) -> dict[str, str | None]:
    """The server scenarios that the suite runs for a revision, each with the reason why it is not scored, or None."""
    done = suite("list", "--requirements", revision)
    found: dict[str, str | None] = {}
    heading = ""
    for line in done.stdout.splitlines():
        if scored := re.fullmatch(r"  - (\S+)", line):
            if heading.startswith("Server"):
                found[scored[1]] = None
        elif unscored := re.fullmatch(r"    - (\S+) \[server\]", line):
            found[unscored[1]] = heading.split(" ")[0]
        elif line.strip().endswith(":"):
            heading = line.strip()
    if not found:
        raise SystemExit(f"`list --requirements {revision}` named no server scenario:\n{done.stdout}{done.stderr}")
    return found


def run(url: str, revision: str) -> Report:
    """Run all scenarios of a revision against a server. One that left no result counts as failed."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        done = suite("server", "--url", url, "--requirements", revision, "--output-dir", directory)
        results = _results(Path(directory))
    last_words = (done.stderr.strip() or done.stdout.strip() or "nothing was printed")[-REASON_LIMIT:]
    outcomes = [
        Outcome(scenario, unscored, *results.get(scenario, ((f"was not run: {last_words}",), ())))
        for scenario, unscored in requirements(revision).items()
    ]
    return Report(revision, tuple(outcomes))


def _results(directory: Path) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """By scenario: the messages of its failed checks, and of those that only warn."""
    found = {}
    for file in directory.glob("server-*/checks.json"):
        scenario = re.sub(r"^server-|-\d{4}-\d\d-\d\dT[\d-]+Z$", "", file.parent.name)
        checks = json.loads(file.read_text())
        found[scenario] = _messages(checks, "FAILURE"), _messages(checks, "WARNING")
    return found


def _messages(checks: Sequence[Mapping[str, str]], status: str) -> tuple[str, ...]:
    return tuple(
        f"{check['id']}: {check.get('errorMessage') or check['description']}"
        for check in checks
        if check["status"] == status
    )


@contextmanager
def serving(block: Block) -> Iterator[str]:
    """The server of a block, running: its URL."""
    if block.keys is None:
        with _directly(block.args) as url:
            yield url
        return
    # The suite cannot send a token, so this daemon, on loopback, asks for none.
    daemon = Daemon(python_server("everything", EVERYTHING, *block.args, **block.keys), frontdoor='auth = "none"')
    try:
        daemon.start()
        yield f"{daemon.url}/servers/everything/mcp"
    finally:
        daemon.close()


@contextmanager
def _directly(args: Sequence[str]) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, EVERYTHING, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def show(block: Block, reports: Sequence[Report]) -> None:
    """Print a block: what failed and why, what is not scored, and the closing line."""
    print(f"\n== {block.title} ==")
    for report in reports:
        print(f"{report.revision}: {report.passed} of {len(report.scored)} scenarios, {_wanted(block, report)}")
        for outcome in report.scored:
            for reason in outcome.failures:
                print(f"  failed  {outcome.scenario}: {_short(reason)}")
            for reason in outcome.warnings:
                print(f"  warned  {outcome.scenario}: {_short(reason)}")
        for outcome in report.unscored:
            word = "passes" if outcome.passed else "fails"
            print(f"  not scored ({outcome.unscored}): {outcome.scenario} {word}")
    failed = sum(len(report.failed) for report in reports)
    print(f"{sum(report.passed for report in reports)} passed, {failed} failed", flush=True)


def _wanted(block: Block, report: Report) -> str:
    wanted = block.wanted[report.revision]
    return f"{'as' if report.passed >= wanted else 'NOT as'} expected (at least {wanted})"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_LIMIT else line[: REASON_LIMIT - 1] + "…"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("blocks", nargs="*", help=f"which: {', '.join(block.name for block in BLOCKS)} (default: all)")
    parser.add_argument("--revision", action="append", choices=[HANDSHAKE, PER_REQUEST], help="only this one")
    chosen = parser.parse_args()
    if unknown := set(chosen.blocks) - {block.name for block in BLOCKS}:
        parser.error(f"no such block: {', '.join(sorted(unknown))}")
    good = True
    for block in BLOCKS:
        if chosen.blocks and block.name not in chosen.blocks:
            continue
        revisions = chosen.revision or (HANDSHAKE, PER_REQUEST)
        try:
            with serving(block) as url:
                reports = [run(url, revision) for revision in revisions]
        except AssertionError as refused:  # the daemon did not start, or not with these keys
            lost = sum(reason is None for revision in revisions for reason in requirements(revision).values())
            print(f"\n== {block.title} ==\ncould not be started: {refused}\n0 passed, {lost} failed", flush=True)
            good = False
            continue
        show(block, reports)
        good = good and all(report.passed >= block.wanted[report.revision] for report in reports)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""The official conformance suite, per block as far as mcpd has come; and that mcpd does not know it is being tested."""

import re

import pytest

from contract.conformance import (
    BLOCKS,
    HANDSHAKE,
    PER_REQUEST,
    Block,
    Report,
    requirements,
    run,
    serving,
)
from support.daemon import ROOT

# By block and revision: the scenarios that are known to fail.
KNOWN: dict[tuple[str, str], set[str]] = {
    ("direct", HANDSHAKE): set(),
    ("direct", PER_REQUEST): set(),
    ("both", HANDSHAKE): set(),
    ("both", PER_REQUEST): set(),
    ("auto", HANDSHAKE): set(),
    # one wants a key of the server's choice, which no handshake child can give; two ask for the client's roots, of
    # which a shared child is not told
    ("auto", PER_REQUEST): {
        "input-required-result-basic-elicitation",
        "input-required-result-basic-list-roots",
        "input-required-result-multiple-input-requests",
    },
    ("handshake-only", HANDSHAKE): set(),
    ("handshake-only", PER_REQUEST): {"input-required-result-basic-elicitation"},
}
BY_NAME = {block.name: block for block in BLOCKS}


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", [block for block in BLOCKS if any(name == block.name for name, _ in KNOWN)])
def test_exactly_the_known_scenarios_of_a_block_fail(block: Block) -> None:
    revisions = [revision for name, revision in KNOWN if name == block.name]

    with serving(block) as url:
        reports = [run(url, revision) for revision in revisions]

    for report in reports:
        assert set(report.failed) == KNOWN[block.name, report.revision], reasons(report)


def reasons(report: Report) -> str:
    return "\n".join(f"{one.scenario}: {why}" for one in report.scored for why in one.failures)


@pytest.mark.long
def test_what_is_known_to_fail_leaves_what_is_wanted() -> None:
    for (name, revision), failing in KNOWN.items():
        scored = [scenario for scenario, reason in requirements(revision).items() if reason is None]

        assert failing <= set(scored)
        assert len(scored) - len(failing) >= BY_NAME[name].wanted[revision]


def test_mcpd_knows_no_name_of_the_suite() -> None:
    """A gateway that treats the suite's tools in a special way would prove nothing."""
    program = (ROOT / "tests/contract/everything_tools.py").read_text() + (
        ROOT / "tests/contract/everything.py"
    ).read_text()
    names = set(re.findall(r'"(test_\w+|json_schema_\w+)"', program)) | set(re.findall(r'"(test://[^"]+)"', program))
    keys = {"user_name", "capital_question", "client_roots", "step1", "step2", "user_context"}
    assert {"test_simple_text", "test_input_required_result_elicitation", "test://static-text"} <= names

    for file in sorted((ROOT / "supervisor").rglob("*.py")):
        text = file.read_text()
        found = {name for name in names if name in text} | {key for key in keys if f'"{key}"' in text}
        assert not found, f"{file} names {sorted(found)}"

"""Every snippet of the document is run by a test here."""

from pathlib import Path

import pytest

from support.document import SNIPPETS

TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
HELPER = (Path(__file__).parent.parent.parent / "support" / "document.py").read_text()


@pytest.mark.parametrize("name", list(SNIPPETS))
def test_each_snippet_is_used(name: str) -> None:
    assert f'SNIPPETS["{name}"]' in TESTS or f'"{name}"' in HELPER


def test_no_snippet_was_lost() -> None:
    assert len(SNIPPETS) == 14

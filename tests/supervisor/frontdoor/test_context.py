"""How many sessions a principal may have."""

from __future__ import annotations

import pytest

from mcpd.errors import TooMany
from mcpd.frontdoor.context import Quota


def test_a_principal_has_a_limit_of_its_own() -> None:
    quota = Quota(limit=2)
    quota.take("ada")
    quota.take("ada")

    assert quota.full("ada")
    with pytest.raises(TooMany):
        quota.take("ada")
    quota.take("bob")
    assert quota.total() == 3


def test_what_is_given_back_can_be_taken_again() -> None:
    quota = Quota(limit=1)
    quota.take("ada")
    quota.give("ada")
    quota.take("ada")

    assert quota.total() == 1

"""Addresses that are wrong again and again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.frontdoor.limits import REMEMBERED, FailureLimit, is_loopback


class Hand:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def limit(clock: Hand) -> FailureLimit:
    return FailureLimit(clock, burst=3, refill=10.0)


def fail(limit: FailureLimit, times: int, address: str = "192.0.2.1") -> None:
    for _ in range(times):
        limit.failed(address)


def test_a_few_failures_cost_nothing(limit: FailureLimit) -> None:
    fail(limit, 3)
    assert limit.wait("192.0.2.1") == 0


def test_more_are_a_wait_of_their_address_only(limit: FailureLimit, clock: Hand) -> None:
    fail(limit, 4)
    assert limit.wait("192.0.2.1") == 10
    assert limit.wait("192.0.2.2") == 0
    clock.now += 9
    assert limit.wait("192.0.2.1") == 1
    clock.now += 1
    assert limit.wait("192.0.2.1") == 0


def test_a_flood_does_not_make_the_wait_longer(limit: FailureLimit) -> None:
    fail(limit, 1000)
    assert limit.wait("192.0.2.1") == 10


def test_one_that_was_never_wrong_lately_is_forgotten(limit: FailureLimit, clock: Hand) -> None:
    fail(limit, 3)
    clock.now += 31
    assert limit.wait("192.0.2.1") == 0
    assert len(limit) == 0


def test_all_addresses_of_one_customer_are_one(limit: FailureLimit) -> None:
    fail(limit, 4, "2001:db8:1:2::1")
    assert limit.wait("2001:db8:1:2:ffff::9") > 0
    assert limit.wait("2001:db8:1:3::1") == 0


def test_no_more_than_so_many_are_remembered(clock: Hand) -> None:
    limit = FailureLimit(clock, burst=0, refill=10.0)
    for number in range(REMEMBERED + 10):
        limit.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(limit) == REMEMBERED
    assert limit.wait("10.0.0.1") == 0
    assert limit.wait(f"10.0.{REMEMBERED >> 8 & 255}.{REMEMBERED & 255}") > 0


@given(st.text(max_size=40), st.integers(0, 30))
def test_whatever_an_address_looks_like(address: str, times: int) -> None:
    clock = Hand()
    limit = FailureLimit(clock, burst=3, refill=10.0)
    fail(limit, times, address)
    assert (limit.wait(address) > 0) == (times > 3)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::1%lo", "::ffff:127.0.0.1"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%eth0", "localhost", "127.0.0.1."])
def test_not_loopback(address: str) -> None:
    assert not is_loopback(address)

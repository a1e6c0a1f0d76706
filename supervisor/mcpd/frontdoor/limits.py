"""How often an address may be wrong before it is not listened to for a while."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

BURST: Final = 10
"""Wrong credentials in a row that cost nothing but an answer."""
REFILL: Final = 6.0
"""Seconds after which one more may be wrong."""
REMEMBERED: Final = 4096
"""Addresses; the one that was wrong longest ago is forgotten first."""
PREFIX: Final = 64
"""Bits of an IPv6 address that one customer has (RFC 6177)."""

Address: TypeAlias = IPv4Address | IPv6Address


class FailureLimit:
    """A token bucket an address, of those that were wrong lately only: nobody else is looked at."""

    __slots__ = ("_burst", "_clock", "_refill", "_whole_at")

    def __init__(self, clock: Callable[[], float], burst: int = BURST, refill: float = REFILL) -> None:
        """`clock` is monotonic."""
        self._clock = clock
        self._burst = burst
        self._refill = refill
        # By address, oldest failure first: when all that was spent will have come back (GCRA: one number is a bucket).
        self._whole_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._whole_at)

    def failed(self, address: str) -> None:
        """Credentials of this address were wrong."""
        key = _key(address)
        now = self._clock()
        whole_at = max(self._whole_at.pop(key, now), now) + self._refill
        if len(self._whole_at) >= REMEMBERED:
            del self._whole_at[next(iter(self._whole_at))]
        self._whole_at[key] = min(whole_at, now + (self._burst + 1) * self._refill)

    def wait(self, address: str) -> float:
        """Seconds for which nothing that this address shows is looked at; 0: it is."""
        if not self._whole_at:
            return 0.0
        key = _key(address)
        whole_at = self._whole_at.get(key)
        if whole_at is None:
            return 0.0
        spent = whole_at - self._clock()
        if spent <= 0:
            del self._whole_at[key]
        return max(0.0, spent - self._burst * self._refill)


def _key(address: str) -> str:
    found = parse(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found), PREFIX), strict=False).network_address)
    return address


def parse(address: str) -> Address | None:
    """An address as a socket tells it; an IPv4 address inside IPv6 is what it stands for. None if it is none."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def is_loopback(address: str) -> bool:
    """Whether somebody on this machine has this address."""
    found = parse(address)
    return found is not None and found.is_loopback

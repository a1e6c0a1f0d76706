"""What an instance is there for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from mcpd.routing.info import Lists


class Role(Enum):
    """Whom an instance serves, and until when. Those of the registry are SHARED or LEARNER, one for each name there."""

    SHARED = auto()  # all clients
    LEARNER = auto()  # nobody: it shows what a server offers of which each session has its own
    SUCCESSOR = auto()  # will be SHARED, in another's place, once it is READY
    RETIRED = auto()  # was SHARED, and has been replaced
    SPARE = auto()  # nobody yet: its process is told nothing before it is claimed
    OWN = auto()  # one party


@dataclass(slots=True)
class Place:
    """`party`, `capabilities` (raw JSON) and `lists` are those of OWN."""

    role: Role
    party: str | None = None
    capabilities: bytes | None = None
    lists: Lists | None = None

    def give(self, party: str, capabilities: bytes, lists: Lists) -> None:
        """A spare gets somebody to serve."""
        assert self.role is Role.SPARE
        self.role, self.party, self.capabilities, self.lists = Role.OWN, party, capabilities, lists

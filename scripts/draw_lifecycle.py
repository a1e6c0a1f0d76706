"""Draw the states of an instance into docs/lifecycle.md, from the table in mcpd.lifecycle.states.

Without an option it writes the picture; with --check it only compares, and exits with 1 if the picture is old.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from mcpd.lifecycle.events import Event
from mcpd.lifecycle.states import TRANSITIONS, State

DOCUMENT = Path(__file__).parent.parent / "docs" / "lifecycle.md"
BEGIN, END = "<!-- drawn by scripts/draw_lifecycle.py -->", "<!-- end of the drawing -->"


def main() -> int:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = f"{before}{BEGIN}\n\n```mermaid\n{diagram()}\n```\n\n{END}{after}"
    if drawn == text:
        return 0
    if "--check" in sys.argv[1:]:
        sys.stderr.write(f"{DOCUMENT.name} shows another table; run scripts/draw_lifecycle.py\n")
        return 1
    DOCUMENT.write_text(drawn)
    return 0


def diagram() -> str:
    """Mermaid text: one arrow for each pair of states, with all the events that lead along it."""
    arrows: dict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, event), targets in TRANSITIONS.items():
        for target in targets - {state}:
            arrows[state, target].append(label(event))
    order = list(State)
    lines = ["stateDiagram-v2", "    [*] --> STOPPED"]
    for (state, target), labels in sorted(arrows.items(), key=lambda arrow: [order.index(end) for end in arrow[0]]):
        lines.append(f"    {state} --> {target}: {', '.join(labels)}")
    return "\n".join(lines)


def label(event: type[Event]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", event.__name__).lower()


if __name__ == "__main__":
    sys.exit(main())

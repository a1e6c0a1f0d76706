"""The time: what it is somewhere, what a time elsewhere is here, and how far two zones are apart.

    python -m mcpworker time.py [ZONE]

ZONE (or the environment's TZ) is the zone that is meant where a call names none; without either it is UTC.
"""

import os
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from mcp_types import Completion, CompletionArgument, CompletionContext
from pydantic import Field

from mcpworker import FastMCP
from mcpworker.completion import Reference
from mcpworker.errors import ToolError

HOME = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TZ", "").lstrip(":") or "UTC"

mcp = FastMCP("time", instructions="Tells the time. Zones are IANA names, such as Europe/Berlin or America/New_York.")

Zone = Annotated[str, Field(description="IANA name of a time zone; empty for the server's own")]
READ_ONLY = {"readOnlyHint": True, "openWorldHint": False}


@dataclass
class Moment:
    """A point in time as clocks in one zone show it."""

    time: str
    zone: str
    weekday: str
    utc_offset: str
    daylight_saving: bool


@dataclass
class Difference:
    """How far the clocks of one zone are ahead of another's."""

    hours: float
    text: str


def zone_of(name: str) -> ZoneInfo:
    """The zone of this name.

    Raises:
        ToolError: there is none.
    """
    try:
        return ZoneInfo(name or HOME)
    except (KeyError, ValueError, OSError):
        wanted = name.rpartition("/")[2].lower()
        near = sorted(zone for zone in available_timezones() if wanted and wanted in zone.lower())[:5]
        hint = f"; did you mean {', '.join(near)}?" if near else "; use an IANA name such as Europe/Berlin"
        raise ToolError(f"there is no time zone {name or HOME!r}{hint}") from None


def offset_text(offset: timedelta) -> str:
    """+05:30 for five and a half hours."""
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def moment(when: datetime, zone: ZoneInfo) -> Moment:
    """What clocks in a zone show at some time."""
    local = when.astimezone(zone)
    offset, saving = local.utcoffset(), local.dst()
    return Moment(
        time=local.isoformat(timespec="seconds"),
        zone=zone.key,
        weekday=f"{local:%A}",
        utc_offset=offset_text(offset or timedelta()),
        daylight_saving=bool(saving),
    )


def parse(text: str, zone: ZoneInfo) -> datetime:
    """A time of day (today in the zone), or a date and time; a time with an offset of its own keeps it.

    Raises:
        ToolError: it is neither.
    """
    today = datetime.now(zone).date()
    for candidate in (text, f"{today}T{text}", f"{today}T0{text}"):
        try:
            parsed = datetime.fromisoformat(candidate)
        except ValueError:
            continue
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)
    raise ToolError(f"{text!r} is no time; write 14:30, or 2026-03-29T14:30")


@mcp.tool(annotations=READ_ONLY)
async def now(zone: Zone = "") -> Moment:
    """The current date and time in a time zone."""
    where = zone_of(zone)
    return moment(datetime.now(where), where)


@mcp.tool(annotations=READ_ONLY)
async def convert(
    time: Annotated[str, Field(description="14:30 (today), or 2026-03-29T14:30")], target: Zone, source: Zone = ""
) -> dict[Literal["source", "target"], Moment]:
    """What a time in the source zone is in the target zone."""
    there = zone_of(source)
    when = parse(time, there)
    return {"source": moment(when, there), "target": moment(when, zone_of(target))}


@mcp.tool(annotations=READ_ONLY)
async def difference(
    zone: Zone,
    other: Zone = "",
    time: Annotated[str, Field(description="when, in the first zone; empty for now")] = "",
) -> Difference:
    """How far the clocks of one zone are ahead of (or, negative, behind) another's; it changes with daylight saving."""
    first, second = zone_of(zone), zone_of(other)
    when = parse(time, first) if time else datetime.now(first)
    ahead = (when.astimezone(first).utcoffset() or timedelta()) - (when.astimezone(second).utcoffset() or timedelta())
    return Difference(hours=ahead / timedelta(hours=1), text=f"{first.key} is {offset_text(ahead)} from {second.key}")


@mcp.resource("time://zones/{area}", mime_type="application/json")
def zones(area: str) -> list[str]:
    """The names of all time zones of an area, such as Europe."""
    return sorted(zone for zone in available_timezones() if zone.startswith(f"{area}/"))


@mcp.completion()
def areas(_: Reference, argument: CompletionArgument, __: CompletionContext | None) -> Completion | None:
    found = sorted({zone.split("/")[0] for zone in available_timezones() if "/" in zone})
    return Completion(values=[area for area in found if area.lower().startswith(argument.value.lower())][:100])


if __name__ == "__main__":
    zone_of("")
    mcp.run()

"""The scalar types of the registry's dialect: durations, sizes, names, bools and ints that are not guessed."""

from __future__ import annotations

import math
import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, Strict
from pydantic_core import PydanticCustomError

DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE_UNITS: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
LONGEST_DURATION: Final = 366 * 24 * 3600.0
LARGEST_SIZE: Final = 2**50
NAME_RULE: Final = "a name is 1 to 32 of a-z, 0-9 and '-', and does not begin with '-'"

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def refusal(message: str, remedy: str) -> PydanticCustomError:
    """To be raised by a validator; `load` turns it into a `Problem` with file and line."""
    return PydanticCustomError("mcpd", "{message}", {"message": message, "remedy": remedy})


def parse_duration(value: object) -> float:
    """Seconds from `"500ms"`, `"5s"`, `"10m"`, `"1h"` or a number of seconds.

    Raises PydanticCustomError (a ValueError) for anything else, and for what is negative, endless or over a year.
    """
    remedy = 'write "500ms", "5s", "10m", "1h" or a number of seconds'
    number, unit = _quantity(value, "duration", remedy)
    if unit and unit not in DURATION_UNITS:
        raise refusal(f"unknown unit {unit!r} in the duration {value!r}", remedy)
    seconds = number * DURATION_UNITS[unit] if unit else number
    if seconds > LONGEST_DURATION:
        raise refusal(f"the duration {value!r} is over a year", remedy)
    return seconds


def parse_size(value: object) -> int:
    """Bytes from `"64KiB"`, `"4MiB"`, `"1GiB"` or a number of bytes.

    Raises PydanticCustomError (a ValueError) for anything else, and for parts of a byte. "MB" is refused because
    people mean 2**20 by it as often as 10**6.
    """
    remedy = 'write "64KiB", "4MiB", "1GiB" or a number of bytes'
    number, unit = _quantity(value, "size", remedy)
    if unit and unit not in SIZE_UNITS:
        raise refusal(f"unknown unit {unit!r} in the size {value!r}", remedy)
    size = number * SIZE_UNITS[unit or "B"]
    if size != int(size):
        raise refusal(f"the size {value!r} is not a whole number of bytes", remedy)
    if size > LARGEST_SIZE:
        raise refusal(f"the size {value!r} is too large", remedy)
    return int(size)


def _quantity(value: object, kind: str, remedy: str) -> tuple[float, str]:
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        if match is None:
            raise refusal(f"{value!r} is not a {kind}", remedy)
        return float(match[1]), match[2]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(f"expected a {kind}, found {describe(value)}", remedy)
    if not math.isfinite(value) or value < 0:
        raise refusal(f"{value!r} is not a {kind}", remedy)
    return value, ""


def check_name(value: str) -> str:
    """The name of a server, view or profile; it becomes a file name, a URL part and a prefix of tool names."""
    if _NAME.fullmatch(value) is None:
        raise refusal(f"the name {value!r} cannot be used", NAME_RULE)
    return value


def check_secret_name(value: str) -> str:
    """The name of a file in the secrets directory: no slash, no leading dot, so it cannot lead out of there."""
    if _SECRET_NAME.fullmatch(value) is None:
        raise refusal(
            f"the secret name {value!r} cannot be used",
            "use letters, digits, '.', '_' and '-'; begin with a letter or digit",
        )
    return value


def check_text(value: str) -> str:
    """Text that can be handed to a process: execve(2) ends each string at its first NUL."""
    if "\0" in value:
        raise refusal("the text holds a NUL character, which no program can be given", "remove it")
    return value


def describe(value: object) -> str:
    """A value of a TOML document in the words of the TOML specification, for error messages."""
    for kind, word in _WORDS:
        if isinstance(value, kind):
            return word if kind in (dict, list) else f"{word} ({_shown(value)})"
    return f"a {type(value).__name__}"


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


_WORDS: Final[tuple[tuple[type, str], ...]] = (
    (bool, "a boolean"),  # before int: bool is a subclass of it
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)

# TOML has types of its own: nothing is converted from strings, 1 is not true, 5.0 is not an integer.
Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Duration = Annotated[float, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[float, Field(gt=0), BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]

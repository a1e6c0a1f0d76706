"""Say plainly that the interpreter is too old, instead of failing somewhere in the middle of an installation."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file is for older interpreters
    sys.exit(
        "mcpd needs Python 3.11 or later; this is {}.{}. Name another one: make PYTHON=python3.12 ...".format(
            *sys.version_info
        )
    )

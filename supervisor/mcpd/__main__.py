"""`python -m mcpd`: the same as the console script `mcpd`."""

import sys

from mcpd.cli.entry import mcpd

if __name__ == "__main__":
    sys.exit(mcpd())

"""`python -m mcpworker SCRIPT [ARGUMENT...]`, or `python -m mcpworker run FILE[:OBJECT] [--transport …]`."""

import os
import sys

from mcpworker.launcher import cli, start

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"]:
        sys.exit(cli.main(arguments[1:], os.environ.pop("MCPWORKER_PROGRAM", "python -m mcpworker run")))
    sys.exit(start.main(arguments, "python -m mcpworker"))

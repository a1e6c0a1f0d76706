"""`python -m mcpworker SCRIPT [ARGUMENT...]`, or `python -m mcpworker run FILE[:OBJECT] [--transport …]`."""

import sys

from mcpworker.launcher import cli, start

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"]:
        sys.exit(cli.main(arguments[1:]))
    sys.exit(start.main(arguments, "python -m mcpworker"))

"""Well behaved: sends every line of stdin back, ends with stdin."""

import sys

for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()

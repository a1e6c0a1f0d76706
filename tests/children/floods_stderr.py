"""Writes as many bytes on stderr as its argument says, no line break among them, then says done on stdout."""

import os
import sys

left = int(sys.argv[1])
while left > 0:
    left -= os.write(2, b"x" * min(left, 65536))
os.write(1, b"done\n")
sys.stdin.read()

"""Writes one line of as many bytes as its argument says, then a short one."""

import os
import sys

left = int(sys.argv[1])
while left > 0:
    left -= os.write(1, b"y" * min(left, 1 << 20))
os.write(1, b"\nshort\n")
sys.stdin.read()

"""Writes its arguments as lines, one byte a write."""

import os
import sys

for byte in "".join(f"{word}\n" for word in sys.argv[1:]).encode():
    os.write(1, bytes([byte]))
sys.stdin.read()

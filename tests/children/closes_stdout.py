"""Closes stdout and lives on until stdin ends."""

import os
import sys

os.write(1, b"last words\n")
os.close(1)
sys.stdin.read()
os._exit(0)

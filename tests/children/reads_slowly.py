"""Reads stdin a few bytes at a time; at the end it tells how many lines and bytes, and their digest."""

import hashlib
import os

digest, size, lines = hashlib.sha256(), 0, 0
while chunk := os.read(0, 997):
    digest.update(chunk)
    size += len(chunk)
    lines += chunk.count(b"\n")
os.write(1, f"{lines} {size} {digest.hexdigest()}\n".encode())

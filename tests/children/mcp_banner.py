"""Begins with a banner."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer

sys.stdout.buffer.write(b"Welcome to the server!\n")
Peer().run()

"""Holds the FIFO given as argument open for writing for as long as it lives."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer

os.open(sys.argv[1], os.O_WRONLY)
Peer().run()

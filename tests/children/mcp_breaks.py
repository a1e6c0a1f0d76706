"""Ends with code 9, before it says anything, while the FILE given as argument is there."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer

if os.path.exists(sys.argv[1]):
    sys.exit(9)
Peer().run()

"""Ends at once, with the exit code (7) or by the signal (-11) that is its argument."""

import os
import resource
import sys

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
how = int(sys.argv[1])
if how < 0:
    os.kill(os.getpid(), -how)
sys.exit(how)

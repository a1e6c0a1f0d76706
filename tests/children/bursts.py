"""Writes as many short lines as its argument says in as few writes as it can, and ends at once."""

import os
import sys

data = memoryview(b"".join(b"%d\n" % number for number in range(int(sys.argv[1]))))
while data:
    data = data[os.write(1, data) :]

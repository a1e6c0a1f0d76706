"""Does too much of what its argument says, and ends as most programs do then: with the error as its last words."""

import os
import sys
import threading
import time

what = sys.argv[1]
if what == "nofile":
    held = [open("/dev/null") for _ in range(1000)]
elif what == "fsize":
    with open("/tmp/large", "wb") as file:
        for _ in range(64):
            file.write(b"x" * 2**20)
elif what == "forks":
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
elif what == "threads":
    for _ in range(200):
        threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
elif what == "memory":  # one step that is refused, before it could be seen
    held = bytearray(4 * 2**30)
else:
    print("open: Too many open files, says another machine", file=sys.stderr)
    print("so it gives up", file=sys.stderr)
sys.exit(3)

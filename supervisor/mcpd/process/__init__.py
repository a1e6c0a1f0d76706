"""One child process with its pipes: how it is started, spoken to, watched and ended, whatever it does.

No protocol and no policy in here: frames are bytes, and who starts what again is decided elsewhere.
"""

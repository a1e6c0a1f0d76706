"""The shell: runs instances, carries messages between them and sessions.

Tasks that outlive a request are started here and by the daemon itself, and nowhere else.
"""

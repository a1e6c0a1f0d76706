"""Starts a server script: the standard library only, so that a script pays for nothing but its own imports.

Nothing here may import the rest of `mcpworker`; the daemon runs `__main__.py` by its path, under any interpreter.
"""

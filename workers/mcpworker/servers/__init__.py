"""Small servers that ship with mcpd: useful as they are, and examples of how a server is written.

They are run as scripts (`python -m mcpworker …/servers/time.py`), not imported.
"""

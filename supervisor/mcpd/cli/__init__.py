"""The programs `mcpd` and `mcpctl`: command lines, what they print, and `mcpctl connect`.

Nothing is imported here: `mcpctl connect` starts through this package in tens of milliseconds.
"""

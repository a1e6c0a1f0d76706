"""How a server is contained: from what the registry says to the command line that a kernel mechanism needs.

`policy` is pure: values in, a `LaunchPlan` out. `probe` finds out what this machine can do by doing it.
"""

"""How a server is contained: from what the registry says to the command line that a kernel mechanism needs.

`warden` puts it together: `ground` looks what a server needs of the host's files, `identity` who it is, and `policy`,
which is pure, makes a `LaunchPlan` of that. `probe` finds out what this machine can do by doing it.
"""

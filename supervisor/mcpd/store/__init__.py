"""What outlives the daemon: desired states, marks, catalogues, the history of events, tokens.

`database` is the SQLite file, `store` what the daemon talks to, `tokens` the default token and named ones. Nothing here
decides anything about servers, and no failure of the disk gets out of here as an exception.
"""

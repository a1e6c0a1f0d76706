"""What outlives the daemon: desired states, marks, catalogues, the history of events, the default token.

`database` is the SQLite file, `store` what the daemon talks to, `tokens` the bearer token. Nothing here decides
anything about servers, and no failure of the disk gets out of here as an exception.
"""

"""The operators' side: HTTP with JSON over a unix socket, and its client.

Here lives what an operator can ask of a running daemon (`seam`) and is shown of it (`view`), how it is asked over the
socket (`api`), and how a tool asks it (`client`, standard library and msgspec only) and makes sure whom it asks
(`trust`). Nothing here knows how servers are run, and nothing of a client's side (sessions' contents, tokens) passes
through.
"""

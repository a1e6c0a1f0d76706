"""The bytes of the protocol: lines, JSON-RPC envelopes, server-sent events, method names, revisions.

Pure: no asyncio, clock, descriptor or logger in here. Only envelopes are decoded; what is inside `params`
and `result` stays the bytes that came.
"""

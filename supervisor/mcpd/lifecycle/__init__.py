"""The life of an instance as values: which states there are, what leads from one to the next, when to try again.

Pure: events with their time in, effects out. No task, clock, process, random source or logger in here; `fleet`
carries the effects out.
"""

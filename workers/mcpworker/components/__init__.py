"""The things a server offers - tools, resources, templates, prompts - each knowing how to run and to describe itself.

Nothing here knows of sessions, transports or mounting.
"""

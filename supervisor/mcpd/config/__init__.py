"""The registry: TOML in, frozen values out.

Here lives all that knows the dialect: models, defaults, checks, secrets, and the comparison of two registries. Files
are read here and nowhere else; nothing here starts a process, keeps state, or knows who asks.
"""

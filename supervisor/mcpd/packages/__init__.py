"""Packages of npm and PyPI that servers are made of: installed once, pinned, and then only read.

Installing is done in a sandbox of its own that can write nothing but the new installation. What is started from it, and
how that is contained, is not decided here.
"""

"""Command line, example tasks and everything else a person starts by hand.

The top layer: it parses, reports and delegates to `pipeline`.
"""

"""Processes that work together, and watches over their work."""

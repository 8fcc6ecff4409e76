"""Retrieval from an index: exact top k, self-influence, bounds."""

"""Influence from projections: scores, rounding, the exact top k."""

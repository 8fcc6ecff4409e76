"""Keeping an index right over time: verification, generations."""

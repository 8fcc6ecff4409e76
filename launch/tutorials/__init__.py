"""Tutorials in percent format: to be read, and run cell by cell or whole."""

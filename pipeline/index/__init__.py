"""The index on storage: its format, its manifest, and its readers."""

"""The jobs that make bases, and bases on storage."""

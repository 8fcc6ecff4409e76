"""Pages that people look at in a browser: reports of indexes."""

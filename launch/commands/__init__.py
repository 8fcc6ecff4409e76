"""One module per command: keyword arguments in, a JSON-like result out."""

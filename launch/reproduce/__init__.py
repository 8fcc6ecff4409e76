"""What `influence reproduce` and `demo` run, and their pages."""

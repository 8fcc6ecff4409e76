"""Tasks that run as they are, and are templates for your own."""

"""What people and programs see: tables, plots, pages, metrics."""

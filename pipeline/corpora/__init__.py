"""Where training examples come from, read by range."""

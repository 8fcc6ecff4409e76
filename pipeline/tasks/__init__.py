"""What a user brings, a model with loss and corpus: loaded, checked."""

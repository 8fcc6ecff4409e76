"""How good scores are: detection, retrieval, retraining."""

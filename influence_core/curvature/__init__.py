"""The curvature of a loss as an operator on parameter space."""

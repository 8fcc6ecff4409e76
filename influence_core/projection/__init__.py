"""From a traced loss to projections of per-example gradients."""

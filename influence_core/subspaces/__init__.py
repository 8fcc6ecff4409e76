"""Subspaces of Kronecker form, a few coordinates of each layer."""

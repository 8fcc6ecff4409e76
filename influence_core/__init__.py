"""Influence functions by Arnoldi iteration, in pure JAX.

The lowest layer: curvature, basis, gradient projection and scores. It knows
nothing of Beam, storage, datasets or command lines, so that it can be used
from a notebook as it is. `pipeline` builds the batch jobs on top of it.
"""

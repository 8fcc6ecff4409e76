"""What callers can choose, by name, and defaults that several layers share.

Nothing here takes time to import, so that a command line can show it at once.
"""

from typing import Literal

Curvature = Literal['hessian', 'gauss_newton', 'empirical_fisher']
ParameterPlacement = Literal['replicated', 'sharded']
BasisPlacement = Literal['auto', 'replicated', 'sharded', 'streamed']
BasisDtype = Literal['float32', 'bfloat16']
NegativeEigenvalues = Literal['drop', 'abs', 'clip']
Normalization = Literal['none', 'gradient_norm', 'cosine']
PairChoice = Literal['leading', 'random']
# The sum over a table's rows, or nothing.
Tables = Literal['sum', 'left_out']
# See `subspaces.side_directions`.
Directions = Literal['leading', 'whitened']
QueryMethod = Literal['gradient', 'cg', 'lissa', 'exact', 'ekfac']
RandomMethod = Literal['random', 'random_gram']

# Largest |Hv - lambda v| / |lambda| of an eigenpair that can be relied on.
RELIABLE_RESIDUAL = 0.1

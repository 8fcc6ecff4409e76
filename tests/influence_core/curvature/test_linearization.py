"""A product cut in two is the product, for parameters of any precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core.curvature import linearization


@pytest.mark.parametrize('is_double', [False, True])
def test_vectors_are_float32(is_double):
  with jax.enable_x64(is_double):
    weight = jnp.asarray([1.0, 2.0, 3.0], float)

    def product(vector, weight):
      return {'a': (weight**2 * vector['a'].astype(weight.dtype)).sum()}

    parts = linearization.Linearization(product, like={'a': weight})
    kept = parts.prepare(weight)
    found = parts.apply(kept, {'a': np.ones(3, np.float32)}, weight)
    assert found['a'] == 14

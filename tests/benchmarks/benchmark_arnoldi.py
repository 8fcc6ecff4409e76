"""How fast a basis is fitted, against the paper's method in the same run.

    python -m tests.benchmarks.benchmark_arnoldi --json_out result.json

For each model the same number of Arnoldi steps on the same sample, from the
same first vector, each way in a process of its own:

  paper    as published (the jax-influence code, sizes of its MNIST notebook): a
           product of one batch by pmap, vectors as pytrees on the host, a
           Python loop over them for one Gram-Schmidt pass, eigenvectors by a
           loop over pairs and vectors. Its accumulation of microbatches by
           fori_loop is left out, since XLA on CPU runs convolutions in a loop
           about ten times slower; --paper_microbatch_size adds them up outside.
  ours     curvature_operator, arnoldi and krylov_vectors of this project, with
           freed host memory kept, as `influence` does

Printed are seconds of the whole job and of orthogonalisation alone,
max |QQ^T - I|, and the worst residual |Hv - lambda v| / |lambda| of the leading
pairs, measured with further products, not as each method states it.
"""

import argparse
from collections.abc import Callable
import json
import time
from typing import Any

from flax import jax_utils
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np

from influence_core import parameter_selection
from influence_core.curvature import operator as curvature_operator
from influence_core.devices import host_allocator, multi_device
from influence_core.eigenpairs import (
  arnoldi,
  basis as basis_lib,
  host_vectors,
  krylov_vectors,
  ritz,
)
from tests.benchmarks import benchmark_projection, projection_models

MODELS: dict[str, Callable[..., projection_models.ProjectionCase]] = {
  'convolutional': projection_models.convolutional,
  'language_model': projection_models.language_model,
}
# Columns converted to float64 at a time.
_BLOCK_COLUMNS = 1 << 16


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--models', nargs='+', default=list(MODELS))
  parser.add_argument('--num_steps', type=int, default=200)
  parser.add_argument('--num_examples', type=int, default=512)
  parser.add_argument('--projection_dim', type=int, default=100)
  parser.add_argument('--paper_microbatch_size', type=int)
  parser.add_argument('--json_out', help='also write the figures here')
  flags = parser.parse_args()
  results = []
  for name in flags.models:
    result = {
      way.__name__: benchmark_projection.in_own_process(way, name, flags)
      for way in (paper, ours)
    }
    for key in ('seconds', 'orthogonalisation_seconds'):
      result[f'{key}_ratio'] = result['paper'][key] / result['ours'][key]
    results.append({'model': name, **result})
    _print_result(results[-1])
  if flags.json_out:
    with open(flags.json_out, 'w', encoding='utf-8') as file:
      json.dump(results, file, indent=1)


def ours(name: str, flags) -> dict[str, Any]:
  """The job as this project does it."""
  host_allocator.keep_freed_memory()
  case = MODELS[name](num_examples=flags.num_examples)
  operator = _operator(case)
  size = operator.num_parameters
  vectors = host_vectors.HostVectors(
    host_vectors.MemoryRows(
      flags.num_steps + 1, size, krylov_vectors.DTYPES['float32']
    )
  )
  timed = _Timed(vectors.orthogonalise)
  vectors.orthogonalise = timed  # type: ignore[method-assign]
  initial = operator.random_vector([0])
  jax.block_until_ready(operator(initial))  # Compiled before, as in the other.
  started = time.perf_counter()
  state = arnoldi.iterate(
    operator,
    vectors,
    arnoldi.start(vectors, initial),
    num_parameters=size,
    is_done=lambda state: state.num_products == flags.num_steps,
  )
  pairs = ritz.leading_pairs(
    ritz.ritz_pairs(state), flags.projection_dim, keep_negative=True
  )
  found = dict(basis_lib.eigenvectors(vectors, pairs, _selected(case)))
  seconds = time.perf_counter() - started
  flat = np.concatenate(
    [found[path].reshape(len(pairs), -1) for path in sorted(found)], axis=1
  )
  krylov = vectors.combine(np.eye(flags.num_steps + 1), 0, size)
  return {
    'seconds': seconds,
    'orthogonalisation_seconds': timed.seconds,
    **_quality(operator, krylov, flat, pairs.eigenvalues),
  }


def paper(name: str, flags) -> dict[str, Any]:
  """The job as published (arXiv 2112.03052, section 3 and its code)."""
  case = MODELS[name](num_examples=flags.num_examples)
  operator = _operator(case)
  selected = jax.tree.map(jnp.asarray, _selected(case))
  product = _published_product(case, selected, flags.paper_microbatch_size)
  initial = np.asarray(operator.random_vector([0])).reshape(-1)
  _, unravel = flatten_util.ravel_pytree(selected)
  vector = _on_host(unravel(jnp.asarray(initial)))
  product(vector)
  started = time.perf_counter()
  vectors, hessenberg, orthogonalisation = _published_iteration(
    product, _scaled(vector, 1 / _inner(vector, vector) ** 0.5), flags.num_steps
  )
  values, coefficients = np.linalg.eigh((hessenberg + hessenberg.T) / 2)
  order = np.argsort(-np.abs(values))[: flags.projection_dim]
  eigenvectors = []
  for pair in order:
    total = jax.tree.map(np.zeros_like, vectors[0])
    for number, krylov in enumerate(vectors[:-1]):
      total = _add_multiple(total, coefficients[number, pair], krylov)
    eigenvectors.append(total)
  seconds = time.perf_counter() - started
  flat = np.stack([_flat(tree) for tree in eigenvectors])
  return {
    'seconds': seconds,
    'orthogonalisation_seconds': orthogonalisation,
    **_quality(
      operator, np.stack([_flat(v) for v in vectors]), flat, values[order]
    ),
  }


def _published_iteration(product, vector, num_steps: int):
  """(vectors, square Hessenberg matrix, seconds of Gram-Schmidt)."""
  vectors = [vector]
  hessenberg = jnp.zeros((num_steps + 1, num_steps))
  orthogonalisation = 0.0
  for step in range(num_steps):
    residual = product(vectors[-1])
    started = time.perf_counter()
    for number, other in enumerate(vectors):
      overlap = _inner(residual, other)
      hessenberg = hessenberg.at[number, step].set(overlap)
      residual = _add_multiple(residual, -overlap, other)
    norm = np.sqrt(_inner(residual, residual))
    orthogonalisation += time.perf_counter() - started
    hessenberg = hessenberg.at[step + 1, step].set(norm)
    vectors.append(_on_host(_scaled(residual, 1 / norm)))
  return vectors, np.array(hessenberg[:-1]), orthogonalisation


def _published_product(case, selected, microbatch_size: int | None):
  """v -> Hv from host to host, with copies of all on each device."""

  def of_batch(selected, vector, batch):
    def loss(selected):
      params = parameter_selection.replace_parameters(case.params, selected)
      return jnp.mean(case.per_example_loss(params, batch))

    product = jax.jvp(jax.grad(loss), (selected,), (vector,))[1]
    return jax.lax.pmean(product, 'batch')

  total = multi_device.num_examples(case.features)
  size = microbatch_size or total
  if total % size:
    raise ValueError(f'{total} examples cannot be cut into batches of {size}')
  batches = [
    batch.features for batch in multi_device.padded_batches(case.features, size)
  ]
  mapped = jax.pmap(of_batch, 'batch')
  copies = jax_utils.replicate(selected)

  def product(vector):
    spread = jax_utils.replicate(vector)
    parts = [mapped(copies, spread, batch) for batch in batches]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(parts), *parts)
    return _on_host(jax_utils.unreplicate(mean))

  return product


def _on_host(tree):
  return jax.tree.map(np.array, tree)


def _inner(one, other):
  products = jax.tree.map(lambda a, b: jnp.sum(a * b), one, other)
  return jax.tree.reduce(jnp.add, products)


def _add_multiple(tree, factor, other):
  return jax.tree.map(lambda a, b: a + b * factor, tree, other)


def _scaled(tree, factor):
  return jax.tree.map(lambda leaf: leaf * factor, tree)


def _flat(tree) -> np.ndarray:
  return np.concatenate([np.ravel(tree[path]) for path in sorted(tree)])


def _selected(case):
  return parameter_selection.select_parameters(case.params)


def _operator(case) -> curvature_operator.CurvatureOperator:
  return curvature_operator.CurvatureOperator(
    case.per_example_loss, case.params, sample=case.features
  )


def _quality(operator, krylov, eigenvectors, eigenvalues) -> dict[str, float]:
  """Orthogonality of the Krylov vectors, and true residuals of some pairs."""
  gram = np.zeros((len(krylov), len(krylov)))
  for start in range(0, krylov.shape[1], _BLOCK_COLUMNS):
    block = krylov[:, start : start + _BLOCK_COLUMNS].astype(np.float64)
    gram += block @ block.T
  residuals = []
  for number in np.linspace(0, len(eigenvalues) - 1, 10).astype(int):
    vector, value = eigenvectors[number], eigenvalues[number]
    slices = operator.slices(lambda start, stop, v=vector: v[start:stop])
    product = np.asarray(operator(slices)).reshape(-1)[: len(vector)]
    residuals.append(np.linalg.norm(product - value * vector) / abs(value))
  return {
    'orthogonality_error': float(np.abs(gram - np.eye(len(gram))).max()),
    'worst_residual': float(max(residuals)),
    'median_residual': float(np.median(residuals)),
  }


class _Timed:
  """A function that adds up the seconds it takes."""

  def __init__(self, function):
    self._function = function
    self.seconds = 0.0

  def __call__(self, vector, *others):
    jax.block_until_ready(vector)
    started = time.perf_counter()
    result = self._function(vector, *others)
    self.seconds += time.perf_counter() - started
    return result


def _print_result(result: dict[str, Any]) -> None:
  print(
    f'{result["model"]}: whole job {result["seconds_ratio"]:.1f}x, '
    f'orthogonalisation {result["orthogonalisation_seconds_ratio"]:.1f}x'
  )
  for way in ('paper', 'ours'):
    values = result[way]
    print(
      f'  {way:<6}{values["seconds"]:8.1f} s, orthogonalisation '
      f'{values["orthogonalisation_seconds"]:.1f} s, |QQ^T-I| '
      f'{values["orthogonality_error"]:.1e}, residual worst '
      f'{values["worst_residual"]:.1e} median {values["median_residual"]:.1e}',
      flush=True,
    )


if __name__ == '__main__':
  main()

"""How fast gradients are projected, against two other ways in the same run.

    python -m tests.benchmarks.benchmark_projection --json_out result.json

For each model and number of eigenvectors K, interleaved over several rounds:

  jvp        one jitted JVP per eigenvector, as the paper's code does
  plain      per-example gradients by vmap, then a matrix product
  training   forward and backward pass of the batch, as a step of training
  ours       the factored projection
  kronecker  coordinates in the subspaces of all layers

Printed are the medians: examples/s, the ratio to `jvp`, the part of the matrix
product peak measured in the same run (see `flops_per_example`), temporary
memory, and the largest error relative to the largest entry of `jvp`. A number
of threads is that of the process: for one core, run it under `taskset -c 0`.
"""

import argparse
from collections.abc import Callable
from concurrent import futures
import functools
import json
import multiprocessing
import platform
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import parameter_selection
from influence_core.devices import host_allocator, multi_device
from influence_core.projection import (
  basis_collectors,
  packing as basis_packing,
  plan as projection_plan,
  program as projection_program,
  projector as gradient_projection,
  weight_sites,
)
from influence_core.projection.options import ProjectionOptions
from influence_core.subspaces import (
  factored_gradients,
  layers as layers_lib,
  projector as subspace_projector,
  subspace_basis,
)
from tests.benchmarks import projection_models
from tests.kit import plain_projection

MODELS: dict[str, Callable[..., projection_models.ProjectionCase]] = {
  'mlp': projection_models.mlp,
  'convolutional': projection_models.convolutional,
  'language_model': projection_models.language_model,
  'language_model_scanned': functools.partial(
    projection_models.language_model, scanned=True
  ),
  'vision_transformer': projection_models.vision_transformer,
  'encoder_decoder': projection_models.encoder_decoder,
}

# Eigenvectors that JVPs are timed for, one after the other as in the paper's
# code; the rate for K is extrapolated, since they are all alike.
JVP_VECTORS = 4
# Examples whose whole gradients are held at once by the plain way, and bytes
# above which it is left out.
PLAIN_BATCH = 8
PLAIN_LIMIT_BYTES = 8 * 2**30
# Examples that errors are measured on.
NUM_COMPARED = 4


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--models', nargs='+', default=list(MODELS))
  parser.add_argument(
    '--projection_dims', type=int, nargs='+', default=[20, 100]
  )
  parser.add_argument('--coordinates_per_layer', type=int, default=256)
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--basis_dtype', default='float32')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--device', help='platform: cpu, gpu or tpu')
  parser.add_argument('--json_out', help='also write the figures here')
  flags = parser.parse_args()
  results = []
  for name in flags.models:
    for projection_dim in flags.projection_dims:
      result = in_own_process(measure, name, projection_dim, flags)
      results.append(result)
      print_result(result, is_first=len(results) == 1)
  if flags.json_out:
    with open(flags.json_out, 'w', encoding='utf-8') as file:
      json.dump(results, file, indent=1)


def in_own_process(function: Callable, *arguments):
  """Calls in a new process, so that no case pays for another's memory."""
  context = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(function, *arguments).result()


def measure(name: str, projection_dim: int, flags) -> dict[str, Any]:
  """Medians of all ways for one model and one K."""
  host_allocator.keep_freed_memory()
  if flags.device:
    jax.config.update('jax_platforms', flags.device.replace('gpu', 'cuda'))
  case = MODELS[name](num_examples=flags.batch_size)
  basis = random_basis(case.params, projection_dim)
  projector = gradient_projection.GradientProjector(
    case.per_example_loss,
    case.params,
    eigenvectors=basis,
    features=case.features,
    options=ProjectionOptions(
      batch_size=flags.batch_size, basis_dtype=flags.basis_dtype
    ),
  )
  subspaces = subspace_projector_of(case, flags)
  jvp, jvp_bytes = jvp_way(case, basis)
  ways: dict[str, tuple[Callable[[], Any], float]] = {
    # Examples a call is worth: an eigenvector of K is a Kth of an example.
    'jvp': (jvp, flags.batch_size * JVP_VECTORS / projection_dim),
    'ours': (lambda: projector.project(case.features), flags.batch_size),
    'no_norms': (no_norms_way(case, projector), flags.batch_size),
    'training': (training_way(case), flags.batch_size),
    'kronecker': (
      lambda: subspaces.project(case.features),
      flags.batch_size,
    ),
    'peak': (peak_way(), 1.0),
  }
  temporary_bytes = {
    'jvp': jvp_bytes,
    'ours': projector.program.temporary_bytes,
    'kronecker': subspaces.program.temporary_bytes,
  }
  plain, plain_bytes = plain_way(case, basis)
  temporary_bytes['plain'] = plain_bytes
  if plain is not None:
    ways['plain'] = (plain, PLAIN_BATCH)
  rates = interleaved_rates(ways, flags.rounds)
  peak_flops = rates.pop('peak') * 2 * PEAK_SIZE**3
  flops = flops_per_example(projector, basis)
  return {
    'model': name,
    'projection_dim': projection_dim,
    'examples_per_second': rates,
    'ratio_to_jvp': rates['ours'] / rates['jvp'],
    'ratio_to_plain': rates['ours'] / rates['plain'] if plain else None,
    'kronecker_to_training': rates['kronecker'] / rates['training'],
    'extra_for_norms': rates['no_norms'] / rates['ours'] - 1,
    'fraction_of_peak': rates['ours'] * flops / peak_flops,
    'peak_gflops': peak_flops / 1e9,
    'temporary_bytes': temporary_bytes,
    'error': error_against_jvp(projector, case, basis),
    'machine': machine(),
  }


def random_basis(params, projection_dim: int) -> dict[str, np.ndarray]:
  generator = np.random.default_rng(0)
  return {
    path: generator.standard_normal((projection_dim, *leaf.shape), np.float32)
    for path, leaf in parameter_selection.select_parameters(params).items()
  }


def jvp_function(case, features):
  """(selected, tangent) -> [batch] derivatives of the losses."""

  def derivative(selected, tangent):
    def losses(selected):
      replaced = parameter_selection.replace_parameters(case.params, selected)
      return case.per_example_loss(replaced, features)

    return jax.jvp(losses, (selected,), (tangent,))[1]

  return jax.jit(derivative)


def first_examples(case, count: int):
  return jax.tree.map(lambda leaf: jnp.asarray(leaf[:count]), case.features)


def selected_parameters(case):
  selected = parameter_selection.select_parameters(case.params)
  return jax.tree.map(jnp.asarray, selected)


def jvp_way(case, basis):
  features = jax.tree.map(jnp.asarray, case.features)
  selected = selected_parameters(case)
  tangents = [
    {path: jnp.asarray(vectors[k]) for path, vectors in basis.items()}
    for k in range(JVP_VECTORS)
  ]
  function = jvp_function(case, features)
  compiled = function.lower(selected, tangents[0]).compile()

  def project():
    return [
      jax.block_until_ready(compiled(selected, tangent)) for tangent in tangents
    ]

  return project, temporary(compiled)


def plain_way(case, basis):
  features = first_examples(case, PLAIN_BATCH)
  vectors = jax.tree.map(jnp.asarray, basis)

  def project(vectors, features):
    return plain_projection.project_gradients(
      case.per_example_loss, case.params, vectors, features
    )

  compiled = jax.jit(project).lower(vectors, features).compile()
  if temporary(compiled) > PLAIN_LIMIT_BYTES:
    return None, temporary(compiled)
  return lambda: compiled(vectors, features), temporary(compiled)


def subspace_projector_of(case, flags) -> subspace_projector.SubspaceProjector:
  """With random directions, which take as long as any."""
  selected = parameter_selection.select_parameters(case.params)
  gradients = factored_gradients.FactoredGradients(
    case.per_example_loss,
    case.params,
    selected=selected,
    features=case.features,
  )
  leaves = parameter_selection.all_parameters(case.params)
  basis = subspace_basis.SubspaceBasis.random(
    layers_lib.find(gradients, leaves, first_examples(case, 4)),
    flags.coordinates_per_layer,
  )
  return subspace_projector.SubspaceProjector(
    case.per_example_loss,
    case.params,
    stacks=basis.report.stacks,
    directions=basis.directions,
    selected=selected,
    features=case.features,
    options=ProjectionOptions(batch_size=flags.batch_size),
  )


def training_way(case):
  features = jax.tree.map(jnp.asarray, case.features)
  params = jax.tree.map(jnp.asarray, case.params)

  def loss(params, features):
    return case.per_example_loss(params, features).mean()

  compiled = jax.jit(jax.value_and_grad(loss)).lower(params, features).compile()
  return lambda: compiled(params, features)


def no_norms_way(case, projector):
  """Ours without the norms, which the compiler then leaves out."""
  evaluation = basis_collectors.BasisCollectors(
    projector.projection_dim, projector.packing
  )

  def project(leaves, packed, features):
    return projection_program.project_batch(
      projector.traced, leaves, packed, features, evaluation
    ).projections

  mapped = multi_device.parallel_map(project)
  [batch] = multi_device.padded_batches(case.features, projector.batch_size)
  arguments = projector.leaves, projector.basis_blocks[0], batch.features
  compiled = mapped.lower(*arguments).compile()
  return lambda: compiled(*arguments)


PEAK_SIZE = 2048


def peak_way():
  matrix = jnp.ones((PEAK_SIZE, PEAK_SIZE))
  product = jax.jit(
    lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST)
  )
  return lambda: product(matrix)


def temporary(compiled) -> int:
  return compiled.memory_analysis().temp_size_in_bytes


def interleaved_rates(ways, rounds: int) -> dict[str, float]:
  """Median examples/s of each way, which take turns in every round.

  A way is called once before it is timed: after another way's call, caches and
  pages are not as they are when it runs by itself.
  """
  seconds: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(rounds):
    for name, (function, _) in ways.items():
      jax.block_until_ready(function())
      started = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - started)
  return {
    name: examples / statistics.median(seconds[name])
    for name, (_, examples) in ways.items()
  }


def flops_per_example(projector, basis) -> float:
  """Operations of matrix products that the factored projection cannot avoid.

  Forward pass and cotangents of the inputs cost 4 n T for a weight of n entries
  used at T positions; the contraction 2 n T + 2 n K, or 2 n K for T = 1. What
  has no weight (attention scores, normalisation) and what is looked up is not
  counted.
  """
  total = 0.0
  dim = parameter_selection.num_vectors(basis)
  for weight in projector.traced.plan.all_weights():
    if not isinstance(weight, projection_plan.FactoredWeight):
      continue
    positions = sum(
      site.num_positions
      for site in weight.sites
      if not isinstance(site.rule, weight_sites.Lookup)
    )
    form = basis_packing.form_of(weight, dim)
    if form is basis_packing.Form.LOOKUP:
      continue
    forming = 2 * positions if form is basis_packing.Form.GRADIENT else 0
    # All steps of a scan: the whole stacked parameter.
    entries = basis[weight.path][0].size
    total += entries * (4 * positions + forming + 2 * dim)
  return total


def error_against_jvp(projector, case, basis) -> float:
  """The largest error of a few examples, relative to the largest entry."""
  derivative = jvp_function(case, first_examples(case, NUM_COMPARED))
  selected = selected_parameters(case)
  dim = parameter_selection.num_vectors(basis)
  expected = np.stack(
    [
      derivative(selected, {path: v[k] for path, v in basis.items()})
      for k in range(dim)
    ],
    axis=1,
  )  # [examples, projection_dim]
  found = projector.project(case.features).projections[:NUM_COMPARED]
  return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def print_result(result: dict[str, Any], *, is_first: bool) -> None:
  if is_first:
    print(
      f'{"model":<24}{"K":>4}{"jvp/s":>9}{"plain/s":>9}{"ours/s":>9}'
      f'{"x jvp":>7}{"x plain":>8}{"of peak":>8}{"norms":>7}{"MB":>7}'
      f'{"error":>9}{"train/s":>9}{"kron./s":>9}{"x train":>8}{"MB":>7}'
    )
  rates = result['examples_per_second']
  print(
    f'{result["model"]:<24}{result["projection_dim"]:>4}{rates["jvp"]:>9.2f}'
    f'{rates.get("plain", float("nan")):>9.1f}{rates["ours"]:>9.1f}'
    f'{result["ratio_to_jvp"]:>7.1f}'
    f'{result["ratio_to_plain"] or float("nan"):>8.1f}'
    f'{result["fraction_of_peak"]:>8.2f}{result["extra_for_norms"]:>7.1%}'
    f'{result["temporary_bytes"]["ours"] / 1e6:>7.0f}{result["error"]:>9.1e}'
    f'{rates["training"]:>9.1f}{rates["kronecker"]:>9.1f}'
    f'{result["kronecker_to_training"]:>8.2f}'
    f'{result["temporary_bytes"]["kronecker"] / 1e6:>7.0f}',
    flush=True,
  )


def machine() -> dict[str, Any]:
  return {
    'processor': platform.processor() or platform.machine(),
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
    'python': platform.python_version(),
  }


if __name__ == '__main__':
  main()

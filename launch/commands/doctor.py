"""`influence doctor`: whether a task can be projected, and what it takes."""

from collections.abc import Mapping
import math
import time
from typing import Any, NamedTuple

import jax

from influence_core import errors, types
from influence_core.devices import (
  program as device_program,
)
from influence_core.projection import (
  packing as basis_packing,
  plan as projection_plan,
  projector as gradient_projection,
)
from influence_core.projection.options import ProjectionOptions
from influence_core.subspaces import (
  layers as layers_lib,
  projector as subspace_projector,
)
from influence_core.subspaces.subspace_basis import SubspaceBasis
from launch.output import console as console_lib
from launch.running import trial_projector
from pipeline.tasks import checked_projector, loaded_task
from pipeline.tasks.reference import TaskReference

# Bytes of the vector of an example that a user may want to spend.
_BUDGETS = (200, 1000, 4000)


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  basis: str | None,
  coordinates_per_layer: int,
  projection_dim: int | None,
  num_examples: int,
  projection_options: ProjectionOptions,
) -> dict[str, Any]:
  """Makes everything that a projecting worker makes, and times it."""
  errors.check_at_least_one(
    coordinates_per_layer=coordinates_per_layer,
    projection_dim=projection_dim,
    num_examples=num_examples,
  )
  trial = trial_projector.make(
    console,
    task,
    basis,
    projection_options,
    coordinates_per_layer=coordinates_per_layer,
    projection_dim=projection_dim,
  )
  loaded, vectors, projector = trial.loaded, trial.basis, trial.projector
  budgets = (
    []
    if trial.layers is None
    else [_bought(trial.layers, num_bytes) for num_bytes in _BUDGETS]
  )
  with console.stage('check'):
    error = checked_projector.check(projector, loaded, vectors)
  with console.stage('measure'):
    rates = _measure(loaded, projector, num_examples)
  dim, parameters = _describe_parameters(projector, loaded.selected, vectors)
  console.table(
    f'parameters of {loaded.task.name}',
    ['path', 'shape', 'size', 'gradient'],
    [[str(value) for value in row.values()] for row in parameters],
  )
  size = loaded.task.corpus.num_examples
  result = {
    'task': loaded.task.name,
    'device': jax.devices()[0].device_kind,
    'num_devices': jax.local_device_count(),
    'num_parameters': sum(row['size'] for row in parameters),
    'projection_dim': dim,
    **_describe_memory(projector),
    'projection_error': error,
    'examples_per_second': round(rates.examples, 3),
    **(
      {'tokens_per_second': round(rates.tokens, 1)}
      if rates.tokens is not None
      else {}
    ),
    'num_examples': size,
    'expected_seconds': round(size / rates.examples, 1),
  }
  console.table(
    'projection (bytes are those of each device)',
    ['quantity', 'value'],
    [[name, _format(value)] for name, value in result.items()],
  )
  if budgets:
    console.table(
      'what an index of --vector_dtype int8 holds of an example',
      ['bytes', '--coordinates_per_layer', 'of all layers', 'or eigenpairs'],
      [[f'{value:,}' for value in row.values()] for row in budgets],
    )
  return {**result, 'parameters': parameters, 'budgets': budgets}


def _bought(layers: layers_lib.Layers, num_bytes: int) -> dict[str, int]:
  """The most that an example has for so many bytes, in int8."""

  def columns(coordinates: int) -> int:
    return sum(
      stack.num_layers
      * math.prod(layers_lib.num_coordinates(stack, coordinates))
      for stack in layers.stacks
    )

  most = num_bytes
  while most > 1 and columns(most) > num_bytes:
    most -= max(1, most // 16)
  return {
    'bytes_per_example': num_bytes,
    'coordinates_per_layer': most,
    'coordinates': columns(most),
    'eigenpairs': num_bytes,
  }


class _Rates(NamedTuple):
  """What was measured, reading and preprocessing included.

  Attributes:
    examples: per second.
    tokens: per second; None where the task has none.
  """

  examples: float
  tokens: float | None


def _measure(
  loaded: loaded_task.LoadedTask,
  projector: checked_projector.Projector,
  num_examples: int,
) -> _Rates:
  corpus, count_tokens = loaded.task.corpus, loaded.task.token_texts
  positions = range(min(num_examples, corpus.num_examples))
  seconds = 0.0
  known: set[tuple[tuple[int, ...], ...]] = set()
  usable: set[str] = set()
  started = time.monotonic()
  for batch in loaded.preprocess_by_length(
    corpus.read_positions(positions), projector.call_size
  ):
    if not batch.ids:
      continue
    usable |= {*batch.ids}
    shapes = device_program.example_shapes(batch.features)
    if shapes not in known:  # Compiling is done once, however many there are.
      known.add(shapes)
      seconds += time.monotonic() - started
      projector.project(batch.features)
      started = time.monotonic()
    projector.project(batch.features)
  seconds += time.monotonic() - started
  tokens = None
  if count_tokens is not None:
    tokens = sum(
      len(count_tokens(raw))
      for example_id, raw in corpus.read_positions(positions)
      if example_id in usable and isinstance(raw, Mapping)
    )
  return _Rates(len(positions) / seconds, tokens and tokens / seconds)


def _describe_memory(
  projector: checked_projector.Projector,
) -> dict[str, Any]:
  if isinstance(projector, subspace_projector.SubspaceProjector):
    return {
      'batch_size': projector.batch_size,
      'resident_bytes': projector.resident_bytes,
      'temporary_bytes': projector.program.temporary_bytes,
      'peak_bytes': projector.peak_bytes,
    }
  memory = projector.memory
  return {
    'basis_placement': memory.placement,
    'num_basis_blocks': memory.num_blocks,
    'batch_size': projector.batch_size,
    'parameter_bytes': memory.parameter_bytes,
    'basis_bytes': memory.basis_bytes,
    'temporary_bytes': projector.program.temporary_bytes,
    'peak_bytes': projector.peak_bytes,
    'memory_budget_bytes': memory.budget_bytes,
  }


def _describe_parameters(
  projector: checked_projector.Projector,
  selected: types.SelectedParameters,
  basis: checked_projector.AnyBasis,
) -> tuple[int, list[dict[str, Any]]]:
  """Columns of a projection, and how each parameter comes to them."""
  if isinstance(basis, SubspaceBasis):
    dim, ways = basis.projection_dim, _ways_of_layers(basis)
  else:
    assert isinstance(projector, gradient_projection.GradientProjector)
    dim = projector.projection_dim
    weights = {x.path: x for x in projector.traced.plan.all_weights()}
    ways = {path: _gradient(weights.get(path), dim) for path in selected}
  return dim, [
    {
      'path': path,
      'shape': list(leaf.shape),
      'size': int(leaf.size),
      'gradient': ways[path],
    }
    for path, leaf in selected.items()
  ]


def _ways_of_layers(basis: SubspaceBasis) -> dict[str, str]:
  ways = dict.fromkeys(basis.report.left_out, 'left out')
  for stack in basis.report.stacks:
    rows, columns, _ = basis.directions[stack.path]
    count = f'{rows.shape[-1]} x {columns.shape[-1]} coordinates'
    if stack.num_layers > 1:
      count += f' of each of {stack.num_layers} layers'
    ways[stack.path] = count
    if stack.bias is not None:
      ways[stack.bias] = f'with {stack.path}'
  return ways


def _gradient(weight: projection_plan.Weight | None, dim: int) -> str:
  if weight is None:
    return 'zero: unused by the loss'
  if not isinstance(weight, projection_plan.FactoredWeight):
    return 'whole, by differentiation'
  return basis_packing.form_of(weight, dim).value


def _format(value: Any) -> str:
  return f'{value:,}' if isinstance(value, int) else str(value)

"""Arnoldi iterations that survive being killed.

Vectors live on the devices, in host memory or in files, whichever is the first
that they fit (`krylov_placement`); files of them are written after every step
in any case, and continued from.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from influence_core import choices, errors, parameter_selection, types
from influence_core.curvature import operator as curvature_operator
from influence_core.devices import multi_device
from influence_core.eigenpairs import arnoldi, krylov_vectors
from pipeline.bases import curvature_sample, krylov_files, krylov_placement
from pipeline.bases.fit_basis_config import Resources
from pipeline.tasks import loaded_task


@dataclasses.dataclass(frozen=True)
class Iteration:
  """What iteration to run.

  Attributes:
    curvature: which operator.
    dtype: of the stored vectors.
    seed: of the initial vector.
    max_vectors: Krylov vectors there are at a time.
    is_done: when it ends.
    restart_policy: bounds the vectors; None keeps all.
    identity: all that the vectors depend on; checked before it is continued.
    max_products: of a state that is continued; None for any number.
  """

  curvature: choices.Curvature
  dtype: np.dtype
  seed: int
  max_vectors: int
  is_done: Callable[[arnoldi.ArnoldiState], bool]
  restart_policy: arnoldi.RestartPolicy | None
  identity: Mapping[str, Any]
  max_products: int | None = None

  def num_bytes(self, num_columns: int) -> int:
    """Of all vectors, so many entries of each."""
    return self.max_vectors * num_columns * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class KrylovRun:
  """A finished iteration.

  Attributes:
    operator: what was iterated; None when its memory was given back.
    vectors: the Krylov vectors.
    state: the last one.
  """

  operator: curvature_operator.CurvatureOperator | None
  vectors: krylov_vectors.KrylovVectors
  state: arnoldi.ArnoldiState


def run_iteration(
  loaded: loaded_task.LoadedTask,
  sample: types.Features,
  iteration: Iteration,
  resources: Resources,
  *,
  directory: str,
  announce: Callable[[str], None],
  on_step: Callable[[arnoldi.ArnoldiState], None],
) -> KrylovRun:
  """Runs an iteration, or what is left of it.

  Args:
    loaded: the task.
    sample: this process's examples that the operator is averaged over.
    iteration: what to run.
    resources: what it may use.
    directory: where this process makes it durable.
    announce: called with what was decided, before it is done.
    on_step: called after each step.

  Raises:
    errors.InputError: Memory or disk do not suffice, or another iteration is
      kept in `directory`, or more of it.
  """
  newest = multi_device.smallest_over_processes(
    krylov_files.newest_state(directory)
  )
  if newest >= 0:  # Under other settings it may have had more vectors.
    kept = krylov_files.num_vectors(directory, newest)
    most = max(kept, iteration.max_vectors)
    iteration = dataclasses.replace(iteration, max_vectors=most)
  operator = _make_operator(loaded, sample, iteration, resources)
  durable = _place_vectors(operator, iteration, resources, directory, announce)
  state = durable.resume(newest, iteration.max_products, announce)
  if state is None:
    initial = operator.random_vector([iteration.seed])
    state = arnoldi.start(durable.vectors, initial)
    del initial
    durable.keep(state)

  def keep_and_tell(state: arnoldi.ArnoldiState) -> None:
    durable.keep(state)
    on_step(state)

  state = arnoldi.iterate(
    operator,
    durable.vectors,
    state,
    num_parameters=operator.num_parameters,
    is_done=iteration.is_done,
    restart_policy=iteration.restart_policy,
    on_step=keep_and_tell,
  )
  return KrylovRun(operator, durable.vectors, state)


def _make_operator(
  loaded: loaded_task.LoadedTask,
  sample: types.Features,
  iteration: Iteration,
  resources: Resources,
) -> curvature_operator.CurvatureOperator:
  """The operator, which leaves room for vectors on the devices."""
  size = parameter_selection.num_parameters(loaded.selected)
  on_each = iteration.num_bytes(-(-size // jax.device_count()))
  return curvature_sample.make_operator(
    loaded,
    sample,
    curvature_operator.CurvatureOptions(
      curvature=iteration.curvature,
      microbatch_size=resources.microbatch_size,
      memory_budget_bytes=resources.memory_budget_bytes,
      reserved_bytes=krylov_placement.reserved_bytes(on_each, resources),
      parameter_placement=resources.parameter_placement,
    ),
  )


def _place_vectors(
  operator: curvature_operator.CurvatureOperator,
  iteration: Iteration,
  resources: Resources,
  directory: str,
  announce: Callable[[str], None],
) -> '_DurableVectors':
  """No vectors yet, at the place that they will fit."""
  columns = operator.slice_size * jax.local_device_count()
  num_bytes = iteration.num_bytes(columns)
  place = krylov_placement.choose(operator, num_bytes, resources, directory)
  files = krylov_files.KrylovFiles(directory, columns, iteration.dtype)
  # A restart writes new vectors beside the old ones.
  krylov_placement.check_disk(
    files.directory, num_bytes * (2 if iteration.restart_policy else 1)
  )
  announce(
    f'{iteration.curvature} products, {operator.mode}, by '
    f'{operator.microbatch_size} examples, intermediate values kept for '
    f'{operator.num_kept} of {operator.num_microbatches} calls; parameters '
    f'{resources.parameter_placement}; up to {iteration.max_vectors} '
    f'Krylov vectors of {operator.num_parameters:,} {iteration.dtype.name}, '
    f'{num_bytes / 1e9:.2f} GB, on {place}; as much disk at {directory}'
  )
  processes = jax.process_count()
  files.claim(
    {**iteration.identity, 'columns': columns, 'num_processes': processes}
  )
  return _DurableVectors(files, place, iteration.max_vectors)


class _DurableVectors:
  """Krylov vectors at their place, with files that follow them.

  On disk they are those files; elsewhere these are a copy.
  """

  def __init__(
    self, files: krylov_files.KrylovFiles, place: str, num_rows: int
  ):
    self.files = files
    self._on_disk = place == 'disk'
    self.vectors = krylov_placement.make_vectors(place, files.vectors, num_rows)

  def keep(self, state: arnoldi.ArnoldiState) -> None:
    """Makes a state durable."""
    if not self._on_disk:
      self.files.mirror(self.vectors, state)
    self.files.save_state(state)

  def resume(
    self, newest: int, most: int | None, announce: Callable[[str], None]
  ) -> arnoldi.ArnoldiState | None:
    """A state with its vectors in place.

    Args:
      newest: products of the last state that all processes have; -1 for none.
      most: products that it may have; None for any number.
      announce: called with what is continued.

    Raises:
      errors.InputError: It has more products.
    """
    if newest < 0:
      self.files.forget_after(newest)
      return None
    if most is not None and newest > most:
      raise errors.InputError(
        f'{newest} products are kept at {self.files.directory}, more than '
        f'num_iterations ({most}); ask for at least as many, or delete the '
        'directory'
      )
    state = self.files.load_state(newest)
    announce(
      f'continuing after {newest} products kept at {self.files.directory}'
    )
    stored = self.files.vectors
    if self._on_disk:
      stored.verify()
      return state
    for number in range(len(stored)):
      row = stored.row(number).astype(np.float32)
      slices = row.reshape(jax.local_device_count(), -1)
      self.vectors.append(multi_device.place(slices), 1.0)
    return state

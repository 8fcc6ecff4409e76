"""Krylov vectors that stay beside a basis that ended in NO-GO, to go on from.

    WORK_DIR/first/process-000/            of the basis itself
    WORK_DIR/second_sample/process-000/    of those that it is compared with
    WORK_DIR/doubled_sample/process-000/

Going on is what such a basis needs, and each vector cost a product. Those of a
good one are deleted: they take more disk than the basis.
"""

import dataclasses
from typing import Any

import jax

from influence_core import errors
from pipeline.bases import krylov_files, stored_basis, task_basis
from pipeline.bases.fit_basis_config import (
  CHANGEABLE,
  FitBasisConfig,
  Resources,
)
from pipeline.storage import files as storage, fingerprints
from pipeline.tasks import loaded_task

ITERATIONS = ('first', 'second_sample', 'doubled_sample')


def work_directory(path: str, resources: Resources) -> str:
  """Where the vectors of the basis at `path` are."""
  return resources.work_dir or storage.join(storage.absolute(path), 'krylov')


def process_directory(work_dir: str, name: str) -> str:
  """Where those of an iteration are that this process has."""
  return storage.join(work_dir, name, f'process-{jax.process_index():03d}')


def find_basis(
  path: str,
  config: FitBasisConfig,
  resources: Resources,
  loaded: loaded_task.LoadedTask,
) -> stored_basis.BasisRecord | None:
  """The basis already at `path`: what is asked for, or to go on from.

  Args:
    path: where the basis is to be.
    config: what to fit.
    resources: say where vectors are.
    loaded: the task.

  Raises:
    errors.InputError: Something else is at `path`, it cannot be written, or
      nothing is left to go on from.
  """
  record = task_basis.find(path, config, loaded, changeable=CHANGEABLE)
  if record is None:
    return None
  changed = difference(record, config)
  if changed is None:
    return record
  name, found, value = changed
  what = f'the basis at {record.path} has {name} {found}, not {value}'
  directory = work_directory(path, resources)
  num_kept = krylov_files.newest_state(process_directory(directory, 'first'))
  if num_kept < 0:
    raise errors.InputError(
      f'{what}, and no Krylov vectors are at {directory} to go on from (they '
      'are kept while a basis is NO-GO, in the --work_dir if it has one); '
      'choose another --out'
    )
  if config.num_iterations is not None and config.num_iterations < num_kept:
    raise errors.InputError(
      f'{what}, and {num_kept} products are kept at {directory}; ask for at '
      'least as many iterations, or choose another --out'
    )
  return record


def difference(
  record: stored_basis.BasisRecord, config: FitBasisConfig
) -> tuple[str, Any, Any] | None:
  """(setting, that of a basis, that which is asked for); None if all agree."""
  changed = fingerprints.first_difference(
    record.config, dataclasses.asdict(config)
  )
  if changed is None:
    return None
  name, *values = changed
  none = 'auto' if name == 'num_iterations' else 'the default'
  found, value = (none if value is None else value for value in values)
  return name, found, value


def num_bytes(work_dir: str) -> int:
  """Disk that the vectors take, as far as this process sees them."""
  return sum(
    sum(storage.sizes(storage.join(work_dir, name, process)).values())
    for name in ITERATIONS
    for process in storage.list_names(storage.join(work_dir, name))
  )


def remove(work_dir: str) -> None:
  """Deletes the vectors that this process has."""
  for name in ITERATIONS:
    storage.remove_directory(process_directory(work_dir, name))
    storage.remove_empty_directory(storage.join(work_dir, name))
  storage.remove_empty_directory(work_dir)

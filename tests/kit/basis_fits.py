"""Fits of bases of the ridge regression, whole or killed between two steps."""

import numpy as np

from pipeline.bases import (
  fit_basis,
  fit_basis_config,
  kept_vectors,
  stored_basis,
)
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


class KilledError(Exception):
  """Stands for a kill between two steps."""


def load(workdir, **arguments):
  reference = TaskReference(
    'tests.kit.linear_task:make_task', {'workdir': str(workdir), **arguments}
  )
  return loaded_task.LoadedTask.load(reference)


def config(**values):
  defaults = {'projection_dim': 3, 'num_iterations': 5, 'sample_size': 100}
  return fit_basis_config.FitBasisConfig(**{**defaults, **values})


def fit(loaded, path, *, progress=lambda done, total: None, **values):
  """Fits a basis or more of it, as the command does."""
  given = {
    name: values.pop(name)
    for name in ('microbatch_size', 'placement', 'work_dir')
    if name in values
  }
  resources = fit_basis_config.Resources(**given)
  wanted = config(**values)
  told = []
  record = fit_basis.fit_basis(
    loaded,
    str(path),
    wanted,
    resources,
    replaced=kept_vectors.find_basis(str(path), wanted, resources, loaded),
    announce=told.append,
    progress=progress,
  )
  return record, told


def eigenvectors(record):
  vectors = stored_basis.load(record).eigenvectors
  return np.concatenate(
    [vectors[path].reshape(len(vectors[path]), -1) for path in sorted(vectors)],
    axis=1,
  )


def kill_after(num_steps):
  def progress(done, total):
    if done == num_steps:
      raise KilledError

  return progress

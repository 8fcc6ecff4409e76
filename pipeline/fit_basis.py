"""The basis job: corpus sample -> Hessian -> Arnoldi -> stored basis."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from influence_core import (
  arnoldi,
  errors,
  hessian_vector_product,
  parameter_selection,
  types,
)
from influence_core import basis as basis_lib
from pipeline import loaded_task, storage, stored_basis


@dataclasses.dataclass(frozen=True)
class FitBasisConfig:
  """How a basis is fitted.

  Attributes:
    projection_dim: eigenpairs wanted.
    num_iterations: Arnoldi steps, at least projection_dim; two to four times
      as many make the last pairs converge.
    sample_size: examples the Hessian is averaged over, drawn at random.
    microbatch_size: examples differentiated at a time on each device.
    keep_negative: also keep pairs with negative eigenvalues.
    seed: of the sample and the initial vector.
  """

  projection_dim: int = 50
  num_iterations: int = 100
  sample_size: int = 4096
  microbatch_size: int = 128
  keep_negative: bool = False
  seed: int = 0

  def __post_init__(self):
    for name in (
      'projection_dim',
      'num_iterations',
      'sample_size',
      'microbatch_size',
    ):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f'{name} is {getattr(self, name)}, expected at least 1'
        )
    if self.num_iterations < self.projection_dim:
      raise errors.InputError(
        f'num_iterations is {self.num_iterations}, expected at least '
        f'projection_dim ({self.projection_dim}); about twice as many is usual'
      )


def find_fitted(
  path: str, config: FitBasisConfig, loaded: loaded_task.LoadedTask
) -> stored_basis.BasisRecord | None:
  """The basis already at `path`, if it is what this job would make.

  Raises:
    errors.InputError: Something else is at `path`, or it cannot be written.
  """
  if not storage.exists(path):
    storage.check_writable(path)
    return None
  if not storage.exists(storage.join(path, 'basis.json')):
    if storage.exists(storage.join(path, 'eigenvectors')):
      raise errors.InputError(
        f'{path} holds eigenvectors without basis.json: a fit was interrupted '
        'while storing; delete the directory'
      )
    storage.check_writable(path)
    return None
  record = stored_basis.load_record(path)
  stored_basis.check_belongs(record, loaded.fingerprints)
  for name, value in _full_config(config, loaded).items():
    if record.config.get(name) != value:
      raise errors.InputError(
        f'the basis at {path} has {name} {record.config.get(name)}, not '
        f'{value}; choose another --out'
      )
  return record


def fit_basis(
  loaded: loaded_task.LoadedTask,
  path: str,
  config: FitBasisConfig,
  *,
  progress: types.ProgressCallback = types.no_progress,
) -> stored_basis.BasisRecord:
  """Fits a basis on one fixed random sample and stores it at `path`."""
  started = time.monotonic()
  sample = draw_sample(loaded, config.sample_size, config.seed)
  operator = hessian_vector_product.make_hessian_vector_product(
    loaded.task.per_example_loss,
    loaded.params,
    sample=sample.features,
    parameter_paths=loaded.task.parameter_paths,
    l2_weight=loaded.task.l2_weight,
    microbatch_size=config.microbatch_size,
  )
  size = parameter_selection.num_parameters(loaded.selected)
  factorization = arnoldi.arnoldi_iteration(
    operator,
    jax.random.normal(jax.random.key(config.seed), (size,)),
    num_iterations=config.num_iterations,
    progress=progress,
  )
  basis = basis_lib.distill_basis(
    factorization,
    loaded.selected,
    projection_dim=config.projection_dim,
    sample_size=len(sample.ids),
    seconds=time.monotonic() - started,
    keep_negative=config.keep_negative,
  )
  return stored_basis.save(
    path,
    basis,
    config=_full_config(config, loaded),
    task_fingerprints=loaded.fingerprints,
  )


def draw_sample(
  loaded: loaded_task.LoadedTask, sample_size: int, seed: int
) -> loaded_task.ExampleBatch:
  """Examples at random positions of the whole corpus, without replacement.

  Raises:
    errors.InputError: Some of them cannot be used.
  """
  corpus = loaded.task.corpus
  size = min(sample_size, corpus.num_examples)
  positions = np.random.default_rng(seed).choice(
    corpus.num_examples, size, replace=False
  )
  batch = loaded.preprocess_batch(
    corpus.read_positions(np.sort(positions).tolist())
  )
  if not batch.ids:
    example_id, reason = next(iter(batch.rejected.items()))
    raise errors.InputError(
      f'none of {size} sampled examples can be used; the first is {example_id} '
      f'({reason})'
    )
  return batch


def _full_config(
  config: FitBasisConfig, loaded: loaded_task.LoadedTask
) -> dict[str, Any]:
  return {
    **dataclasses.asdict(config),
    'l2_weight': loaded.task.l2_weight,
    'corpus': dataclasses.asdict(loaded.task.corpus),
  }

"""A basis with what it depends on: stored, or there already."""

from collections.abc import Collection, Iterable
import dataclasses
from typing import Any

import numpy as np

from influence_core import errors
from influence_core.eigenpairs import krylov_vectors
from pipeline.bases import stored_basis
from pipeline.storage import files as storage, fingerprints, output_places
from pipeline.tasks import loaded_task


def full_config(config: Any, loaded: loaded_task.LoadedTask) -> dict[str, Any]:
  """All that a basis depends on besides the model.

  Args:
    config: dataclass of the job's own settings.
    loaded: the task.
  """
  return {
    **dataclasses.asdict(config),
    'parameter_paths': loaded.selection,
    'l2_weight': loaded.task.l2_weight,
    'corpus': loaded.task.corpus.to_json(),
  }


def save(
  path: str,
  loaded: loaded_task.LoadedTask,
  config: Any,
  eigenvalues: np.ndarray,
  eigenvectors: Iterable[tuple[str, np.ndarray]],
  report: stored_basis.Report,
  *,
  replaced: stored_basis.BasisRecord | None = None,
) -> stored_basis.BasisRecord:
  """Stores a basis with all that it depends on, see `stored_basis.save`.

  Args:
    path: where the basis is to be.
    loaded: the task.
    config: dataclass of the job's own settings, with `basis_dtype`.
    eigenvalues: [projection_dim].
    eigenvectors: (path, [projection_dim, *parameter shape]) of each parameter.
    report: on how it was made.
    replaced: the basis at `path` that it replaces; None for none.
  """
  return stored_basis.save(
    path,
    eigenvalues,
    eigenvectors,
    report,
    dtype=krylov_vectors.DTYPES[config.basis_dtype],
    config=full_config(config, loaded),
    task_fingerprints=loaded.fingerprints,
    probe=loaded.first_examples(),
    replaced=replaced,
  )


def find(
  path: str,
  config: Any,
  loaded: loaded_task.LoadedTask,
  *,
  changeable: Collection[str] = (),
) -> stored_basis.BasisRecord | None:
  """The basis already at `path`, if it is what a job would make.

  Args:
    path: where the basis is to be.
    config: dataclass of the job's own settings.
    loaded: the task.
    changeable: settings that it may have been made with others of.

  Raises:
    errors.InputError: Something else is at `path`, or it cannot be written.
  """
  output_places.check(path, 'basis')
  if not storage.exists(storage.join(path, 'basis.json')):
    storage.check_writable(path)
    return None
  record = stored_basis.load_record(path)
  probed = loaded.with_probe(stored_basis.load_probe(record))
  stored_basis.check_belongs(record, probed.fingerprints)
  wanted = full_config(config, loaded)
  if difference := fingerprints.first_difference(
    record.config, {n: x for n, x in wanted.items() if n not in changeable}
  ):
    name, other, value = difference
    raise errors.InputError(
      f'the basis at {path} has {name} {other}, not {value}; choose another '
      '--out'
    )
  return record

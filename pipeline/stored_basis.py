"""A basis on storage: eigenvectors in Orbax, everything else in one JSON file.

    BASIS/eigenvectors/   Orbax checkpoint, [projection_dim, *shape] by path
    BASIS/basis.json      eigenvalues, report, provenance; written last

`basis.json` is the commit: a directory without it holds no basis.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from influence_core import basis as basis_lib
from influence_core import errors
from pipeline import checkpoints, fingerprints, storage

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class BasisRecord:
  """What is known of a stored basis without reading its eigenvectors.

  Attributes:
    path: absolute path.
    eigenvalues: by decreasing absolute value.
    report: its quality.
    config: resolved configuration of the job that made it.
    task_fingerprints: of the model it belongs to.
    fingerprint: of eigenvalues and eigenvectors.
  """

  path: str
  eigenvalues: tuple[float, ...]
  report: basis_lib.BasisReport
  config: Mapping[str, Any]
  task_fingerprints: Mapping[str, str]
  fingerprint: str

  @property
  def projection_dim(self) -> int:
    return len(self.eigenvalues)


def save(
  path: str,
  basis: basis_lib.Basis,
  *,
  config: Mapping[str, Any],
  task_fingerprints: Mapping[str, str],
) -> BasisRecord:
  """Stores a basis where there is none yet.

  Raises:
    errors.InputError: There is something at `path` already.
  """
  path = storage.absolute(path)
  checkpoints.save_arrays(
    storage.join(path, 'eigenvectors'), dict(basis.eigenvectors)
  )
  record = BasisRecord(
    path=path,
    eigenvalues=tuple(basis.eigenvalues.tolist()),
    report=basis.report,
    config=dict(config),
    task_fingerprints=dict(task_fingerprints),
    fingerprint=_fingerprint(basis),
  )
  content = dataclasses.asdict(record)
  del content['path']
  storage.create_exclusive(
    _record_path(path),
    storage.encode_json({'schema_version': SCHEMA_VERSION, **content}),
  )
  return record


def load_record(path: str) -> BasisRecord:
  """Reads what is known of a basis.

  Raises:
    errors.InputError: No complete basis is there, or it is of another version.
  """
  path = storage.absolute(path)
  if not storage.exists(_record_path(path)):
    raise errors.InputError(
      f'no basis at {path}: basis.json is missing; run fit-basis first'
    )
  content = storage.read_json(_record_path(path))
  version = content.pop('schema_version', None)
  if version != SCHEMA_VERSION:
    raise errors.InputError(
      f'the basis at {path} has schema version {version}, expected '
      f'{SCHEMA_VERSION}; fit it again'
    )
  report: dict[str, Any] = {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in content.pop('report').items()
  }
  return BasisRecord(
    path=path,
    eigenvalues=tuple(content.pop('eigenvalues')),
    report=basis_lib.BasisReport(**report),
    **content,
  )


def load(record: BasisRecord) -> basis_lib.Basis:
  """Reads the eigenvectors of a basis and checks them.

  Raises:
    storage.DamagedFileError: They are not the ones that were stored.
  """
  eigenvectors = checkpoints.load_arrays(
    storage.join(record.path, 'eigenvectors')
  )
  basis = basis_lib.Basis(
    np.asarray(record.eigenvalues), eigenvectors, record.report
  )
  found = _fingerprint(basis)
  if found != record.fingerprint:
    raise storage.DamagedFileError(
      f'the eigenvectors at {record.path} have fingerprint {found}, expected '
      f'{record.fingerprint}: they were altered; fit the basis again'
    )
  return basis


def check_belongs(
  record: BasisRecord, task_fingerprints: Mapping[str, str]
) -> None:
  """Refuses a basis of another model or other selected parameters.

  Raises:
    fingerprints.StaleFingerprintError: Names the field that differs.
  """
  fingerprints.check_equal(
    record.task_fingerprints,
    task_fingerprints,
    what=f'the basis at {record.path}',
    next_step='use the task and model it was fitted for, or fit a new basis',
  )


def _record_path(path: str) -> str:
  return storage.join(path, 'basis.json')


def _fingerprint(basis: basis_lib.Basis) -> str:
  return fingerprints.of_arrays(
    {'eigenvalues': basis.eigenvalues, 'vectors': dict(basis.eigenvectors)}
  )

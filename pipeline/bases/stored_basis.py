"""A basis on storage: eigenvectors in Orbax, everything else in one JSON file.

    BASIS/eigenvectors-5f0c1b2a/part-00000/   Orbax checkpoint of some of the
                              parameters, [projection_dim, *shape] by path
    BASIS/eigenvectors-5f0c1b2a/probe.msgpack   raw examples that preprocessing
                              is known by
    BASIS/basis.json          eigenvalues, report, provenance; written last

`basis.json` is the commit: a directory without it holds no basis. Eigenvectors
are cut into parts of whole parameters, so that a basis larger than memory can
be written.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any
import uuid

import jax
import numpy as np

from influence_core import errors
from influence_core.devices import memory as device_memory
from influence_core.eigenpairs import basis as basis_lib, reports
from influence_core.subspaces import subspace_basis
from pipeline.bases import basis_generations
from pipeline.bases.basis_record import BasisRecord, Report, StoredPart
from pipeline.corpora import corpus as corpus_lib
from pipeline.storage import (
  checked_files,
  files as storage,
  fingerprints,
  machine_cache,
  stored_objects,
)
from pipeline.tasks import checkpoints, probe as preprocessing_probe

SCHEMA_VERSION = 3

# Bytes of eigenvectors in a part; a parameter is never cut.
_PART_BYTES = 1 << 30


def save(
  path: str,
  eigenvalues: np.ndarray,
  eigenvectors: Iterable[tuple[str, np.ndarray]],
  report: Report,
  *,
  dtype: np.dtype,
  config: Mapping[str, Any],
  task_fingerprints: Mapping[str, str],
  probe: Sequence[corpus_lib.RawExample],
  replaced: BasisRecord | None = None,
) -> BasisRecord:
  """Stores a basis where there is none yet, or in place of one.

  With several processes all must call it, and the first one writes.

  Args:
    path: directory of the basis.
    eigenvalues: [projection_dim] float64.
    eigenvectors: (path, [projection_dim, *shape]) of each parameter, taken one
      after the other.
    report: on their quality.
    dtype: to store eigenvectors in, float32 or bfloat16.
    config: what made it.
    task_fingerprints: of the model it belongs to.
    probe: raw examples that the fingerprint of preprocessing was taken of.
    replaced: the basis at `path` that this one replaces; None for none. Only
      the first process needs it.

  Raises:
    errors.InputError: There is another basis at `path` already.
  """
  path = storage.absolute(path)
  directory = f'eigenvectors-{uuid.uuid4().hex[:8]}'
  parts: list[StoredPart] = []
  for part in _parts(eigenvectors, dtype):
    name = f'{directory}/part-{len(parts):05d}'
    if jax.process_index() == 0:
      checkpoints.save_arrays(storage.join(path, name), part)
    parts.append(StoredPart(name, fingerprints.of_arrays(part)))
  examples = preprocessing_probe.encode(probe)
  probe_file = checked_files.StoredFile.of(
    f'{directory}/probe.msgpack', examples
  )
  if jax.process_index() == 0:
    storage.create_exclusive(storage.join(path, probe_file.name), examples)
  values = eigenvalues.tolist()
  record = BasisRecord(
    path=path,
    eigenvalues=tuple(values),
    report=report,
    config=dict(config),
    task_fingerprints=dict(task_fingerprints),
    probe=probe_file,
    parts=tuple(parts),
    fingerprint=fingerprints.of_json(
      [values, [part.fingerprint for part in parts]]
    ),
    generation=replaced.generation + 1 if replaced else 1,
  )
  if jax.process_index() == 0:
    _publish(record, directory)
  return record


def _publish(record: BasisRecord, directory: str) -> None:
  content = dataclasses.asdict(record)
  del content['path'], content['generation']
  basis_generations.publish(
    record.path,
    record.generation,
    {'schema_version': SCHEMA_VERSION, **content},
  )
  for name in storage.list_names(record.path):
    if name.startswith('eigenvectors-') and name != directory:
      storage.remove_directory(storage.join(record.path, name))


def _parts(
  eigenvectors: Iterable[tuple[str, np.ndarray]], dtype: np.dtype
) -> Iterator[dict[str, np.ndarray]]:
  part: dict[str, np.ndarray] = {}
  num_bytes = 0
  for path, vectors in eigenvectors:
    size = vectors.size * dtype.itemsize
    if part and num_bytes + size > _PART_BYTES:
      yield part
      part, num_bytes = {}, 0
    part[path] = vectors.astype(dtype, copy=False)
    num_bytes += size
  yield part


def load_record(path: str) -> BasisRecord:
  """Reads what is known of a basis.

  Raises:
    errors.InputError: No complete basis is there, or it is of another version.
  """
  path = storage.absolute(path)
  generation = basis_generations.newest(path)
  if not generation:
    raise errors.InputError(
      f'no basis at {path}: basis.json is missing; run fit-basis first'
    )
  file = basis_generations.record_path(path, generation)
  content = checked_files.read_json(file)
  version = content.pop('schema_version', None)
  if version != SCHEMA_VERSION:
    raise errors.InputError(
      f'the basis at {path} has schema version {version}, expected '
      f'{SCHEMA_VERSION}; fit it again'
    )
  report = _report(stored_objects.member(content, 'report', file), file)
  known = {'path': path, 'generation': generation, 'report': report}
  return stored_objects.parse(BasisRecord, {**content, **known}, file)


def _report(content: Any, file: str) -> Report:
  kind: type[Report] = reports.BasisReport
  if 'stacks' in content:
    kind = subspace_basis.KroneckerReport
  elif 'query_ids' in content:
    kind = reports.QueryReport
  elif 'method' in content:
    kind = reports.RandomReport
  return stored_objects.parse(kind, content, file)


def load(
  record: BasisRecord,
) -> basis_lib.Basis | subspace_basis.SubspaceBasis:
  """Reads the eigenvectors of a basis, or its subspaces, and checks them.

  Raises:
    storage.DamagedFileError: They are not the ones that were stored.
    errors.InputError: They do not fit memory, or were replaced meanwhile.
  """
  with basis_generations.tell_replacement(record.path, record.generation):
    eigenvalues, arrays = np.asarray(record.eigenvalues), _load_arrays(record)
  if isinstance(record.report, subspace_basis.KroneckerReport):
    return subspace_basis.SubspaceBasis.from_arrays(
      eigenvalues, arrays, record.report
    )
  return basis_lib.Basis(eigenvalues, arrays, record.report)


def _load_arrays(record: BasisRecord) -> dict[str, np.ndarray]:
  eigenvectors: dict[str, np.ndarray] = {}
  # All at once: machines that start together then read different parts.
  directory = record.probe.name.partition('/')[0]
  local = machine_cache.local_directory(storage.join(record.path, directory))
  copies = [
    storage.join(local, part.name.partition('/')[2]) for part in record.parts
  ]
  device_memory.check_host_memory(
    sum(map(checkpoints.num_bytes, copies)),
    f'the eigenvectors of {record.path}',
    'fit a basis of fewer pairs, fewer parameters or --basis_dtype bfloat16',
  )
  for part, copy in zip(record.parts, copies, strict=True):
    path = storage.join(record.path, part.name)
    vectors = checkpoints.load_arrays(copy)
    found = fingerprints.of_arrays(vectors)
    if found != part.fingerprint:
      raise storage.DamagedFileError(
        f'the eigenvectors at {path} have fingerprint {found}, expected '
        f'{part.fingerprint}: they were altered; fit the basis again'
      )
    eigenvectors.update(vectors)
  return eigenvectors


def load_basis(
  path: str,
) -> basis_lib.Basis | subspace_basis.SubspaceBasis:
  """The basis that is stored at `path`, local or gs://.

  Raises:
    errors.InputError: No complete basis is there, or it does not fit memory.
    storage.DamagedFileError: It is not what was stored.
  """
  return load(load_record(path))


def load_probe(record: BasisRecord) -> tuple[corpus_lib.RawExample, ...]:
  """The raw examples that preprocessing is known by.

  Raises:
    storage.DamagedFileError: They are not the ones that were stored.
    errors.InputError: They were replaced meanwhile.
  """
  path = storage.join(record.path, record.probe.name)
  with basis_generations.tell_replacement(record.path, record.generation):
    data = checked_files.read_checked(path, record.probe)
  return tuple(preprocessing_probe.decode(path, data))


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

"""A basis that ended in NO-GO: said in a line by whatever uses it."""

from influence_core import errors
from launch.output import console as console_lib
from pipeline.bases import stored_basis
from pipeline.index import reader as index_reader
from pipeline.storage import files as storage


def tell(
  console: console_lib.Console, record: stored_basis.BasisRecord
) -> None:
  """Warns of a basis that is not good yet, with why and what helps.

  Random vectors and solved queries have no verdict, and nothing is said.
  """
  objections = record.report.objections
  if not objections:
    return
  first, *others = objections
  more = f' (and {len(others)} more)' if others else ''
  console.warn(
    f'the basis at {record.path} ended in NO-GO: {first}{more}; see influence '
    f'describe --basis {record.path}'
  )


def tell_of_index(
  console: console_lib.Console, index: index_reader.Index
) -> None:
  """Warns of the basis that an index was made with, where it is still there.

  For what needs the index alone: no store is asked that it is not in.
  """
  provenance = index.manifest.provenance
  path = provenance.basis
  if storage.is_local(index.path) and not storage.is_local(path):
    return
  try:
    record = stored_basis.load_record(path)
  except errors.InputError:
    return
  if record.fingerprint == provenance.fingerprints['basis']:
    tell(console, record)

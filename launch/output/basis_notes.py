"""A basis that ended in NO-GO: said in a line by whatever uses it."""

from influence_core import errors
from launch.output import console as console_lib
from pipeline.bases import stored_basis
from pipeline.index import members as members_lib
from pipeline.storage import files as storage


def tell(
  console: console_lib.Console, *records: stored_basis.BasisRecord
) -> None:
  """Warns of bases that are not good yet, with why and what helps.

  Random vectors and solved queries have no verdict, and nothing is said.
  """
  for record in records:
    if objections := record.report.objections:
      more = f' (and {len(objections) - 1} more)' if objections[1:] else ''
      console.warn(
        f'the basis at {record.path} ended in NO-GO: {objections[0]}{more}; '
        f'see influence describe --basis {record.path}'
      )


def tell_of_index(
  console: console_lib.Console, index: members_lib.Searched
) -> None:
  """Warns of bases that indexes were made with, where they are still there.

  For what needs the indexes alone: no store is asked that they are not in.
  """
  for member in index.members:
    provenance = member.index.manifest.provenance
    path = provenance.basis
    if storage.is_local(member.index.path) and not storage.is_local(path):
      continue
    try:
      record = stored_basis.load_record(path)
    except errors.InputError:
      continue
    if record.fingerprint == provenance.fingerprints['basis']:
      tell(console, record)

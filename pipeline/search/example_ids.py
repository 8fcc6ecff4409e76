"""Ids of examples, of what people know them by."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from influence_core import errors
from pipeline.index import format as index_format, reader as index_reader
from pipeline.tasks.example_form import EXAMPLE_ID


def of_names(
  index: index_reader.Index, names: Sequence[str]
) -> tuple[str, ...]:
  """The id of each example that has this name, of those indexed.

  Args:
    index: opened index.
    names: ids, which are left as they are, or values of the task's
      `example_id`, as text.

  Raises:
    errors.InputError: Several examples have a name.
  """
  if EXAMPLE_ID not in index.schema.names:
    return tuple(names)
  wanted = pa.array(names, pa.string())
  ids: dict[str, str] = {}
  for shard in index.manifest.shards:
    rows = index_format.read_rows(index.path, shard, ['id', EXAMPLE_ID])
    own = rows[EXAMPLE_ID].cast(pa.string())
    is_wanted = pc.is_in(own, wanted)
    found = (rows['id'].filter(is_wanted), own.filter(is_wanted))
    for example_id, name in zip(
      *(column.to_pylist() for column in found), strict=True
    ):
      if name in ids:
        raise errors.InputError(
          f'{name!r} is the {EXAMPLE_ID} of {ids[name]} and of {example_id}; '
          'give one of these ids'
        )
      ids[name] = example_id
  return tuple(ids.get(name, name) for name in names)

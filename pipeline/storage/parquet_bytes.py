"""Tables from the bytes of a Parquet file that anyone may have written."""

import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.devices import memory as device_memory
from pipeline.storage import files as storage


def read(path: str, data: bytes) -> pa.Table:
  """The table of a file of this program, weighed before it is unpacked.

  Args:
    path: of the file, for errors.
    data: its content.

  Raises:
    storage.DamagedFileError: It is no Parquet file.
    errors.InputError: This machine has no memory for what it unpacks to.
  """
  try:
    file = pq.ParquetFile(pa.BufferReader(data))
    groups = range(file.num_row_groups)
    device_memory.check_host_memory(
      sum(file.metadata.row_group(x).total_byte_size for x in groups),
      f'the rows of {path}',
      'delete the file, which is no rows of this program',
    )
    return file.read()
  except (pa.ArrowException, ValueError, OSError) as error:
    raise storage.DamagedFileError(
      f'{path} is no rows file of an index ({error})'
    ) from error

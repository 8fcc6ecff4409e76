"""Serialized examples of TFDS's file formats, by file and position."""

from collections.abc import Callable, Sequence
import os
import struct
from typing import BinaryIO, Protocol

import google_crc32c
import numpy as np

from pipeline.corpora import extents, parquet_files, record_files

# Of a record of TFRecord: its length and the checksum of that; its checksum.
_HEADER = struct.Struct('<QI')
_FOOTER = struct.Struct('<I')
# The column that TFDS writes serialized examples to.
_PARQUET_COLUMN = 'data'


class RecordError(RuntimeError):
  """A record is damaged, or is not there."""


class RecordReader(Protocol):
  """Reads records, with few files open at a time."""

  def read(self, path: str, positions: Sequence[int]) -> list[bytes]:
    """Records of a file, in the order of `positions`.

    Raises:
      storage.DamagedFileError: The file is missing.
      RuntimeError: A record cannot be read.
    """
    ...


class TfRecords:
  """Records of TFRecord files.

  References:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
  """

  def __init__(self) -> None:
    self._extents = extents.Extents('tfrecord', find_records)

  def read(self, path: str, positions: Sequence[int]) -> list[bytes]:
    try:
      framed = self._extents.read(path, positions)
    except IndexError as error:
      raise RecordError(f'{path} ends before one of the records') from error
    return [_unframe(path, record) for record in framed]


def find_records(stream: BinaryIO) -> np.ndarray:
  """[num_records, 2] int64 places of whole records, framing included.

  Raises:
    ValueError: What should be a record begins with another checksum: it is no
      TFRecord, or is compressed.
  """
  size = stream.seek(0, os.SEEK_END)
  places, start = [], 0
  while start + _HEADER.size <= size:
    stream.seek(start)
    header = stream.read(_HEADER.size)
    length, checksum = _HEADER.unpack(header)
    if _masked_checksum(header[:8]) != checksum:
      raise ValueError(
        f'byte {start} begins no record of TFRecord: it is damaged, or '
        'compressed, which is not read; prepare the dataset again'
      )
    stop = start + _HEADER.size + length + _FOOTER.size
    if stop > size:
      break  # The rest of a record that was cut off.
    places.append((start, stop))
    start = stop
  return np.array(places, np.int64).reshape(-1, 2)


def _unframe(path: str, record: bytes) -> bytes:
  if len(record) < _HEADER.size + _FOOTER.size:
    raise RecordError(f'{path} ends before one of the records')
  data = record[_HEADER.size : -_FOOTER.size]
  (checksum,) = _FOOTER.unpack(record[-_FOOTER.size :])
  if _masked_checksum(data) != checksum:
    raise RecordError(f'a record of {path} does not fit its checksum')
  return data


def _masked_checksum(data: bytes) -> int:
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class ParquetRecords:
  """Records of Parquet files as TFDS writes them: one column of bytes."""

  def __init__(self) -> None:
    self._files = parquet_files.ParquetFiles((_PARQUET_COLUMN,))

  def read(self, path: str, positions: Sequence[int]) -> list[bytes]:
    rows = self._files.read(path, positions)
    return rows.column(_PARQUET_COLUMN).to_pylist()


# By TFDS's names of the formats.
READERS: dict[str, Callable[[], RecordReader]] = {
  'array_record': record_files.RecordFiles,
  'tfrecord': TfRecords,
  'parquet': ParquetRecords,
}

"""The points of `linear_task` in every format that corpora are read in."""

import csv
import gzip
import json
from pathlib import Path
import struct

from array_record.python import array_record_module
import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import FileCorpus, TfdsCorpus
from tests.kit import linear_task

NUM_FILES = 3
# Of one file: several row groups.
_GROUP_SIZE = 40
FILE_KINDS = (
  'parquet',
  'arrow',
  'jsonl',
  'jsonl.gz',
  'jsonl.zst',
  'csv',
  'tsv.gz',
  'npy',
  'npz',
)
TFDS_KINDS = ('array_record', 'tfrecord', 'tfds_parquet')


def write(kind: str, workdir: Path, directory: Path):
  """Writes the training points in three files; returns the corpus."""
  if kind in TFDS_KINDS:
    return convert(kind, workdir / 'data', 'points', directory)
  directory.mkdir()
  x, y = linear_task.points(linear_task.NUM_TRAIN, seed=0)
  for number, rows in enumerate(np.array_split(np.arange(len(x)), NUM_FILES)):
    path = directory / f'train-{number:05d}-of-{NUM_FILES:05d}.{kind}'
    write_file(kind, path, x[rows], y[rows])
  return FileCorpus(str(directory))


def write_file(
  kind: str,
  path: Path,
  x: np.ndarray,
  y: np.ndarray,
  group_size: int = _GROUP_SIZE,
) -> None:
  """One file of a kind; of .npy one for x and one for y."""
  rows = [
    {'x': [float(v) for v in point], 'y': float(target)}
    for point, target in zip(x, y, strict=True)
  ]
  if kind == 'parquet':
    table = pa.table({'x': [list(point) for point in x], 'y': y})
    pq.write_table(table, path, row_group_size=group_size)
  elif kind == 'arrow':
    table = pa.table({'x': [list(point) for point in x], 'y': y})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
      writer.write_table(table, max_chunksize=group_size)
  elif kind == 'npy':
    np.save(path.with_name(f'x_{path.name}'), x)
    np.save(path.with_name(f'y_{path.name}'), y)
  elif kind == 'npz':
    np.savez(path, x=x, y=y)
  elif kind.startswith('jsonl'):
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    _write_text(path, text)
  else:
    lines = [[*(f'x{i}' for i in range(x.shape[1])), 'y', 'note']]
    lines += [[*row['x'], row['y'], 'a, "b"\nc'] for row in rows]
    with open(path.with_suffix('.tmp'), 'w', newline='') as file:
      delimiter = '\t' if kind.startswith('tsv') else ','
      csv.writer(file, delimiter=delimiter).writerows(lines)
    text = path.with_suffix('.tmp').read_text()
    path.with_suffix('.tmp').unlink()
    _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
  data = text.encode()
  if path.suffix == '.gz':
    data = gzip.compress(data)
  elif path.suffix == '.zst':
    data = pa.Codec('zstd').compress(data, asbytes=True)
  path.write_bytes(data)


def convert(
  kind: str, data_dir: Path, dataset: str, directory: Path
) -> TfdsCorpus:
  """A copy of a prepared dataset in another of TFDS's formats."""
  source = data_dir / dataset / '1.0.0'
  target = directory / dataset / '1.0.0'
  target.mkdir(parents=True)
  name = kind.removeprefix('tfds_')
  for file in source.iterdir():
    if 'array_record-' not in file.name:
      text = file.read_text().replace('array_record', name)
      (target / file.name).write_text(text)
      continue
    reader = array_record_module.ArrayRecordReader(str(file))
    records = reader.read(list(range(reader.num_records())))
    path = target / file.name.replace('array_record', name)
    if name == 'array_record':
      path.write_bytes(file.read_bytes())
    elif name == 'tfrecord':
      path.write_bytes(b''.join(map(frame, records)))
    else:
      pq.write_table(pa.table({'data': records}), path, row_group_size=1000)
  return TfdsCorpus(dataset, 'train', str(directory))


def frame(record: bytes) -> bytes:
  """A record as TFRecord files have it."""
  header = struct.pack('<Q', len(record))
  return header + _checksum(header) + record + _checksum(record)


def _checksum(data: bytes) -> bytes:
  crc = google_crc32c.value(data)
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

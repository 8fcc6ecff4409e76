"""The points of `linear_task` in every format that corpora are read in."""

import csv
import gzip
import json
from pathlib import Path
import struct

from array_record.python import array_record_module
import google_crc32c
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import Corpus, FileCorpus, ImageFolderCorpus, TfdsCorpus
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
IMAGE_KINDS = ('images', 'labelled_images')
TFDS_KINDS = ('array_record', 'tfrecord', 'tfds_parquet')


def write(kind: str, workdir: Path, directory: Path):
  """Writes the training points in three files; returns the corpus.

  Of kinds of images, three folders of three.
  """
  if kind in IMAGE_KINDS:
    return _write_images(directory, has_table=kind == 'labelled_images')
  if kind in TFDS_KINDS:
    return convert(kind, workdir / 'data', 'points', directory)
  directory.mkdir()
  x, y = linear_task.points(linear_task.NUM_TRAIN, seed=0)
  for number, rows in enumerate(np.array_split(np.arange(len(x)), NUM_FILES)):
    path = directory / f'train-{number:05d}-of-{NUM_FILES:05d}.{kind}'
    write_file(kind, path, x[rows], y[rows])
  return FileCorpus(str(directory))


def place_of(corpus: Corpus, name: str) -> Path:
  """A file of a source shard."""
  if isinstance(corpus, FileCorpus):
    return Path(corpus.paths_of(name)[0])
  if isinstance(corpus, TfdsCorpus):
    return Path(corpus.data_dir, corpus.dataset, '1.0.0', name)
  assert isinstance(corpus, ImageFolderCorpus)
  return Path(corpus.path, name, '1.png')


def _write_images(directory: Path, *, has_table: bool) -> ImageFolderCorpus:
  generator = np.random.default_rng(0)
  places = [f'{folder}/{number}.png' for folder in 'abc' for number in range(3)]
  for place in places:
    (directory / place).parent.mkdir(parents=True, exist_ok=True)
    pixels = generator.integers(256, size=(40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(directory / place)
  if has_table:
    rows = ''.join(f'{place},{len(place)}\n' for place in places)
    (directory / 'metadata.csv').write_text('file_name,number\n' + rows)
    return ImageFolderCorpus(str(directory), labels='metadata.csv')
  return ImageFolderCorpus(str(directory))


def write_file(
  kind: str,
  path: Path,
  x: np.ndarray,
  y: np.ndarray,
  group_size: int = _GROUP_SIZE,
  x_name: str = 'x',
) -> None:
  """One file of a kind; of .npy one for x and one for y."""
  rows = [
    {x_name: [float(v) for v in point], 'y': float(target)}
    for point, target in zip(x, y, strict=True)
  ]
  if kind == 'parquet':
    table = pa.table({x_name: [list(point) for point in x], 'y': y})
    pq.write_table(table, path, row_group_size=group_size)
  elif kind == 'arrow':
    table = pa.table({x_name: [list(point) for point in x], 'y': y})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
      writer.write_table(table, max_chunksize=group_size)
  elif kind == 'npy':
    np.save(path.with_name(f'{x_name}_{path.name}'), x)
    np.save(path.with_name(f'y_{path.name}'), y)
  elif kind == 'npz':
    np.savez(path, **{x_name: x, 'y': y})
  elif kind.startswith('jsonl'):
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    _write_text(path, text)
  else:
    lines = [[*(f'{x_name}{i}' for i in range(x.shape[1])), 'y', 'note']]
    lines += [[*row[x_name], row['y'], 'a, "b"\nc'] for row in rows]
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

"""How fast an index is searched, against other ways in the same run.

    taskset -c 0 python -m tests.benchmarks.benchmark_retrieval --dir D

Makes an index of random projections (eigenvalues 1/i, log-normal norms) in D
once, and searches it for the k strongest examples, each way in a process of its
own on one thread of BLAS:

  ours      `retrieve.search` from files: both ends, checksums, self-influence
  in_memory the same kernel on rows in memory
  matmul    the bare product of queries and rows in memory, in the same blocks
  argpart   numpy in memory: product and argpartition, both ends
  faiss     IndexFlatIP in memory, one end only, as it comes
  faiss_20  the same with its BLAS threshold set to 20

Printed are seconds, the ratio of each to the bare product, recall of ours
against argpart, memory that ours takes beyond the process before it, and the
rates of reading and writing files.
"""

import argparse
import itertools
import json
import os
import time
from typing import Any, get_args

import numpy as np
import psutil
import pyarrow as pa

from influence_core.devices import host_allocator
from influence_core.scores import influence as influence_scores, top_k
from influence_core.scores.options import ScoreOptions
from pipeline.index import (
  choices as index_choices,
  format as index_format,
  manifest as manifest_lib,
  reader as index_reader,
  vector_codec,
)
from pipeline.search import retrieve
from tests.benchmarks import benchmark_projection

_SHARD_ROWS = 1 << 14
_BLOCK_ROWS = 1 << 14
_TILE = 256


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dir', required=True, help='where the index is made')
  parser.add_argument('--num_rows', type=int, default=2_000_000)
  parser.add_argument('--dim', type=int, default=128)
  parser.add_argument('--k', type=int, default=100)
  parser.add_argument(
    '--num_queries', type=int, nargs='+', default=[1, 16, 256, 1024]
  )
  parser.add_argument(
    '--dtype', default='float32', choices=get_args(index_choices.VectorDtype)
  )
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--json_out', help='also write the figures here')
  flags = parser.parse_args()
  for variable in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'):
    os.environ[variable] = '1'

  def in_process(way, *arguments):
    return benchmark_projection.in_own_process(measured, way, *arguments)

  results: dict[str, Any] = {'files': in_process(files, flags)}
  print('files:', _shown(results['files']))
  for num_queries in flags.num_queries:
    row = {
      way.__name__: in_process(way, num_queries, flags)
      for way in (matmul, in_memory, ours, argpart, faiss, faiss_20)
    }
    found, expected = row['ours'].pop('found'), row['argpart'].pop('found')
    row['ours']['recall'] = float(
      np.mean(
        [
          len(set(one) & set(other)) / len(other)
          for one, other in zip(found, expected, strict=True)
        ]
      )
    )
    for values in row.values():
      values['ratio'] = values['seconds'] / row['matmul']['seconds']
    results[f'Q={num_queries}'] = row
    for way, values in row.items():
      print(f'Q={num_queries} {way}: {_shown(values)}', flush=True)
  if flags.json_out:
    with open(flags.json_out, 'w', encoding='utf-8') as file:
      json.dump(results, file, indent=1)


def measured(way, *arguments):
  """Like the command line, which keeps freed memory."""
  host_allocator.keep_freed_memory()
  return way(*arguments)


def files(flags) -> dict[str, float]:
  """Writes the index if it is not there, and reads its files."""
  written = {}
  if not os.path.exists(manifest_lib.path_of(flags.dir, 1)):
    seconds = _write_index(flags)
    written = {'write_gb_per_second': _index_bytes(flags) / seconds / 1e9}
  index = index_reader.Index(flags.dir)

  paths = [
    f'{flags.dir}/shards/{shard.vectors.name}'
    for shard in index.manifest.shards
  ]

  def read() -> None:
    for path in paths:
      with open(path, 'rb', buffering=0) as file:
        while file.read(1 << 22):
          pass

  queries, _ = _queries(1, flags)
  ways = {'read': read, 'ours_1': lambda: _search(index, queries, flags)}
  rates = {}
  for name, function in ways.items():
    seconds = _median_seconds(function, flags.rounds)
    cold = _median_seconds(function, flags.rounds, lambda: _forget(paths))
    rates[f'{name}_cached_gb_per_second'] = _index_bytes(flags) / seconds / 1e9
    rates[f'{name}_disk_gb_per_second'] = _index_bytes(flags) / cold / 1e9
  return {**written, **rates}


def _forget(paths) -> None:
  """Takes files out of the system's cache."""
  os.sync()
  for path in paths:
    with open(path, 'rb') as file:
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _search(index, queries, flags, **arguments):
  return retrieve.search(
    index,
    queries,
    k=flags.k,
    options=ScoreOptions(),
    **arguments,
  )[None]


def ours(num_queries: int, flags) -> dict[str, Any]:
  index = index_reader.Index(flags.dir)
  queries, _ = _queries(num_queries, flags)
  process = psutil.Process()
  before = process.memory_info().rss
  peak = [before]

  def search():
    return _search(
      index,
      queries,
      flags,
      progress=lambda *_: peak.append(process.memory_info().rss),
    )

  seconds = _median_seconds(search, flags.rounds)
  found = search()
  return {
    'seconds': seconds,
    'added_memory_mb': (max(peak) - before) / 1e6,
    'memory_mb': max(peak) / 1e6,
    'found': np.concatenate(
      [found.proponents.positions, found.opponents.positions]
    ).tolist(),
  }


def in_memory(num_queries: int, flags) -> dict[str, float]:
  rows, (projections, weighted) = _rows(flags), _queries(num_queries, flags)
  weights = 1 / _eigenvalues(flags.dim)
  norms = np.sqrt(np.square(projections) @ weights).astype(np.float32)

  def search():
    scan = top_k.TopKScan(weighted, norms, flags.k)
    for start in range(0, len(rows), _BLOCK_ROWS):
      block = rows[start : start + _BLOCK_ROWS]
      own = influence_scores.self_influence(block, weights)
      positions = np.arange(start, start + len(block))
      scan.add(block, positions, bounds=np.sqrt(own))
    scan.highest(), scan.lowest()

  return {'seconds': _median_seconds(search, flags.rounds)}


def matmul(num_queries: int, flags) -> dict[str, float]:
  rows, (_, weighted) = _rows(flags), _queries(num_queries, flags)
  tile = min(_TILE, num_queries)
  out = np.empty((tile, _BLOCK_ROWS), np.float32)

  def multiply():
    for start in range(0, len(rows), _BLOCK_ROWS):
      block = rows[start : start + _BLOCK_ROWS]
      for first in range(0, num_queries, tile):
        np.matmul(
          weighted[first : first + tile], block.T, out=out[:, : len(block)]
        )

  return {'seconds': _median_seconds(multiply, flags.rounds)}


def argpart(num_queries: int, flags) -> dict[str, Any]:
  rows, (_, weighted) = _rows(flags), _queries(num_queries, flags)
  # As many queries at a time as their scores fit in a gigabyte.
  tile = max(1, (1 << 28) // len(rows))

  def search():
    ends: list[list[np.ndarray]] = [[], []]
    for first in range(0, num_queries, tile):
      scores = weighted[first : first + tile] @ rows.T
      for end, signed in zip(ends, (-scores, scores), strict=True):
        # A copy, or the view would hold all of them.
        order = np.argpartition(signed, flags.k, axis=1)
        end.append(order[:, : flags.k].copy())
    return np.concatenate([part for end in ends for part in end])

  rounds = 1 if num_queries > _TILE else flags.rounds
  seconds = _median_seconds(search, rounds)
  return {'seconds': seconds, 'found': search().tolist()}


def faiss(num_queries: int, flags, threshold: int | None = None):
  import faiss as library

  library.omp_set_num_threads(1)
  if threshold is not None:
    library.cvar.distance_compute_blas_threshold = threshold
  index = library.IndexFlatIP(flags.dim)
  index.add(_rows(flags))
  _, weighted = _queries(num_queries, flags)
  rounds = 1 if num_queries > _TILE else flags.rounds
  return {
    'seconds': _median_seconds(lambda: index.search(weighted, flags.k), rounds)
  }


def faiss_20(num_queries: int, flags):
  return faiss(num_queries, flags, threshold=20)


def _eigenvalues(dim: int) -> np.ndarray:
  return 1 / np.arange(1, dim + 1)


def _queries(count: int, flags) -> tuple[np.ndarray, np.ndarray]:
  """Projections as they are, and weighted by 1 / eigenvalue."""
  generator = np.random.default_rng([1, count])
  values = _eigenvalues(flags.dim)
  projections = generator.normal(size=(count, flags.dim)) * np.sqrt(values)
  weighted = (projections / values).astype(np.float32)
  return projections.astype(np.float32), weighted


def _write_index(flags) -> float:
  """Seconds that writing took, without making up what is written."""
  generator = np.random.default_rng(0)
  values = _eigenvalues(flags.dim)
  edges = [*range(0, flags.num_rows, _SHARD_ROWS), flags.num_rows]
  codec = vector_codec.VectorCodec(flags.dtype, values)
  shards, seconds = [], 0.0
  for start, stop in itertools.pairwise(edges):
    shape = (stop - start, flags.dim)
    vectors = generator.standard_normal(shape, np.float32)
    vectors *= np.sqrt(values).astype(np.float32)
    vectors *= np.exp(generator.normal(size=(len(vectors), 1)))
    rows = pa.table(
      {
        'id': [f'f__{number}' for number in range(start, stop)],
        'loss': pa.array(np.zeros(len(vectors)), pa.float32()),
        'squared_gradient_norm': pa.array(np.square(vectors).sum(axis=1)),
      }
    )
    content = index_format.ShardContent(vectors.astype(np.float32), rows, {})
    example_range = index_format.ExampleRange('f', start, stop, 'x')
    started = time.perf_counter()
    shards.append(
      index_format.write_shard(flags.dir, example_range, content, codec)
    )
    seconds += time.perf_counter() - started
  manifest_lib.publish(
    flags.dir,
    manifest_lib.Provenance(
      {}, '', tuple(values.tolist()), {'dtype': flags.dtype}
    ),
    tuple(shards),
  )
  return seconds


def _rows(flags) -> np.ndarray:
  index = index_reader.Index(flags.dir)
  rows = np.empty((index.num_examples, flags.dim), np.float32)
  for block in index.read_blocks():
    rows[block.first : block.first + len(block.vectors)] = block.vectors
  return rows


def _index_bytes(flags) -> int:
  return 4 * flags.dim * flags.num_rows


def _median_seconds(function, rounds: int, before=lambda: None) -> float:
  function()
  seconds = []
  for _ in range(rounds):
    before()
    started = time.perf_counter()
    function()
    seconds.append(time.perf_counter() - started)
  return float(np.median(seconds))


def _shown(values: dict[str, Any]) -> str:
  return ', '.join(f'{name} {value:.3g}' for name, value in values.items())


if __name__ == '__main__':
  main()

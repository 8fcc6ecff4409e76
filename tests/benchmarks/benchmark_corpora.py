"""Examples/s of reading each kind of corpus, against TFDS in ArrayRecord.

taskset -c 0 python -m tests.benchmarks.benchmark_corpora

The same made-up examples in every format: an array of numbers and a target.
Reading alone, without preprocessing or model, in order and, for a tenth of
them, at random positions; files are scanned before.
"""

import argparse
from pathlib import Path
import statistics
import tempfile
import time
from typing import ClassVar

import numpy as np
import rich.console
import rich.table
import tensorflow_datasets as tfds

from pipeline import Corpus, FileCorpus
from tests.kit import corpus_files, datasets

_BASELINE = 'array_record'


class Numbers(datasets.MadeUpDataset):
  """Random numbers; set before it is prepared."""

  x: ClassVar[np.ndarray]
  y: ClassVar[np.ndarray]

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for key, (x, y) in enumerate(zip(self.x, self.y, strict=True)):
      yield key, {'x': x, 'y': y}


def write(directory: Path, count: int, size: int) -> dict[str, Corpus]:
  """The same examples as a corpus of each kind."""
  generator = np.random.default_rng(0)
  Numbers.x = generator.normal(size=(count, size)).astype(np.float32)
  Numbers.y = generator.normal(size=count).astype(np.float32)
  Numbers.FEATURES = {
    'x': tfds.features.Tensor(shape=(size,), dtype=np.float32),
    'y': tfds.features.Scalar(dtype=np.float32),
  }
  datasets.prepare(Numbers, directory / 'data')
  corpora: dict[str, Corpus] = {
    kind: corpus_files.convert(
      kind, directory / 'data', 'numbers', directory / kind
    )
    for kind in corpus_files.TFDS_KINDS
  }
  for kind in corpus_files.FILE_KINDS:
    path = directory / kind / f'train.{kind}'
    path.parent.mkdir()
    corpus_files.write_file(kind, path, Numbers.x, Numbers.y, 1000)
    corpora[kind] = FileCorpus(str(path.parent))
  return corpora


def measure(corpus: Corpus, *, in_order: bool, count: int) -> float:
  """Examples/s of so many examples."""
  positions = np.arange(count)
  if not in_order:
    generator = np.random.default_rng(0)
    positions = generator.permutation(corpus.num_examples)[:count]
  started = time.perf_counter()
  for _ in corpus.read_positions(positions.tolist()):
    pass
  return count / (time.perf_counter() - started)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--num_examples', type=int, default=10_000)
  parser.add_argument('--num_numbers', type=int, default=64)
  parser.add_argument('--rounds', type=int, default=3)
  flags = parser.parse_args()
  table = rich.table.Table('kind', 'in order', 'ratio', 'at random', 'ratio')
  with tempfile.TemporaryDirectory() as directory:
    corpora = write(Path(directory), flags.num_examples, flags.num_numbers)
    rates: dict[str, list[list[float]]] = {kind: [[], []] for kind in corpora}
    for _ in range(flags.rounds):
      for kind, corpus in corpora.items():
        measure(corpus, in_order=True, count=1)
        for found, in_order, part in (
          (rates[kind][0], True, 1),
          (rates[kind][1], False, 10),
        ):
          count = flags.num_examples // part
          found.append(measure(corpus, in_order=in_order, count=count))
  for kind, both in rates.items():
    cells = []
    for found, baseline in zip(both, rates[_BASELINE], strict=True):
      ratio = statistics.median(
        x / y for x, y in zip(found, baseline, strict=True)
      )
      cells += [f'{statistics.median(found):,.0f}', f'{ratio:.2f}']
    table.add_row(kind, *cells)
  rich.console.Console().print(table)


if __name__ == '__main__':
  main()

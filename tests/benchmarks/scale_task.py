"""A corpus of any size: 64 numbers an example, and a small network on them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipeline import FileCorpus, Task

WIDTH, _HIDDEN = 64, 32


def make_task(path: str, split: str = 'train') -> Task:
  """A regression by one hidden layer on the files of a directory."""
  return make_regression(
    FileCorpus(path, split),
    WIDTH,
    _HIDDEN,
    preprocess_batch=lambda rows: {
      'x': rows.column('x'),
      'y': rows.column('y'),
    },
  )


def make_regression(
  corpus: FileCorpus, width: int, num_hidden: int, **options: Any
) -> Task:
  """A network of one hidden layer on examples with x and y.

  Args:
    corpus: of them.
    width: numbers of x.
    num_hidden: units.
    **options: of the task.
  """
  generator = np.random.default_rng(0)
  sizes = {'hidden': (width, num_hidden), 'out': (num_hidden, 1)}
  params = {
    name: generator.normal(size=size, scale=size[0] ** -0.5).astype(np.float32)
    for name, size in sizes.items()
  }

  def loss(params, features):
    hidden = jax.nn.relu(features['x'] @ params['hidden'])
    return jnp.square((hidden @ params['out'])[:, 0] - features['y'])

  return Task(
    name='points',
    load_parameters=lambda: params,
    per_example_loss=loss,
    corpus=corpus,
    preprocess=lambda raw: {'x': raw['x'], 'y': raw['y']},
    **options,
  )


def write(path: Path, num_examples: int, num_files: int) -> None:
  """`num_files` files of the split train, and one of queries."""
  path.mkdir(parents=True)
  sizes = [len(x) for x in np.array_split(np.empty(num_examples), num_files)]
  for number, size in enumerate(sizes):
    write_file(path, number, num_files, size, seed=number)
  _save(path / 'test.npz', 256, seed=num_files)


def write_file(
  path: Path, number: int, num_files: int, size: int, seed: int
) -> None:
  """One of them, which may have been there before."""
  _save(path / f'train-{number:05d}-of-{num_files:05d}.npz', size, seed)


def _save(file: Path, size: int, seed: int) -> None:
  generator = np.random.default_rng(seed)
  x = generator.standard_normal((size, WIDTH), np.float32)
  np.savez(file, x=x, y=generator.standard_normal(size, np.float32))

"""Ridge regression on a made-up corpus: every quantity has a closed form.

Also a template: this is all that a task of one's own needs.
"""

import multiprocessing
import os
from pathlib import Path
import signal
import time
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from pipeline import (
  ID_KEY,
  Corpus,
  FileCorpus,
  SplitLoss,
  Task,
  TfdsCorpus,
  load_arrays,
  save_arrays,
)
from tests.kit import datasets

NUM_TRAIN = 303
NUM_TEST = 20
NUM_FEATURES = 5
L2_WEIGHT = 0.1


def outputs(params, features):
  """Predictions, [batch]."""
  return features['x'] @ params['weights'] + params['bias']


def output_loss(predicted, features):
  """Half the squared error, [batch]."""
  return 0.5 * jnp.square(predicted - features['y'])


def per_example_loss(params, features):
  return output_loss(outputs(params, features), features)


def make_task(
  workdir: str,
  fault: str = '',
  l2_weight: float = L2_WEIGHT,
  split: str = 'train',
  data_dir: str = '',
  files: str = '',
  asked: bool = False,
  example_id: str | None = None,
):
  """The task.

  Args:
    workdir: see `prepare`.
    fault: a way in which it can be wrong.
    l2_weight: of the training.
    split: of the corpus.
    data_dir: of the corpus, if it is elsewhere.
    files: instead of a dataset, see `corpus_files`.
    asked: whether queries are asked for their prediction.
    example_id: feature that examples are known by.
  """
  losses = {
    'scalar_loss': lambda p, f: per_example_loss(p, f).mean(),
    'nan_loss': lambda p, f: per_example_loss(p, f) * jnp.nan,
    'integer_loss': lambda p, f: per_example_loss(p, f).astype(int),
    'failing_loss': lambda p, f: f['absent'],
    'fixed_batch': lambda p, f: per_example_loss(p, f).reshape(4),
    'mixed_batch': lambda p, f: per_example_loss(p, f) * f['x'].std(0).sum(),
  }
  retrainings = {
    'no_retrain': None,
    'failing_retrain': lambda ids, seed: [][seed],
    'other_retrain': lambda ids, seed: {'weights': jnp.zeros(NUM_FEATURES)},
  }
  name = 'absent' if fault == 'no_dataset' else 'points'
  checkpoint = 'absent' if fault == 'no_checkpoint' else 'checkpoint'
  like = {'weights': jnp.zeros(NUM_FEATURES), 'bias': jnp.zeros(())}
  if fault == 'foreign_checkpoint':
    like['weights'] = jnp.zeros(NUM_FEATURES + 1)
  if fault == 'foreign':
    split = 'test'
  data: Corpus = TfdsCorpus(name, split, data_dir or f'{workdir}/data')
  if files:
    data = FileCorpus(files, split)
  return Task(
    name='linear',
    load_parameters=lambda: load_arrays(f'{workdir}/{checkpoint}', like=like),
    per_example_loss=losses.get(fault, per_example_loss),
    corpus=data,
    preprocess=lambda raw: preprocess(raw, fault),
    row_columns=lambda raw: {'half': int(float(raw['y']) > 0)},
    loss_reduction='mean' if fault == 'other_reduction' else 'none',
    parameter_paths=('weights',) if fault == 'other_paths' else ('.*',),
    l2_weight=l2_weight,
    split_loss=None
    if fault == 'no_split_loss'
    else SplitLoss(outputs, output_loss),
    measurement=outputs if asked else None,
    predict=lambda p, f: {'predicted': outputs(p, f)},
    example_id=example_id,
    retrain=retrainings.get(
      fault, lambda ids, seed: solution(data, ids, l2_weight)
    ),
  )


def solution(data, ids, l2_weight):
  """The ridge solution of some examples, whatever the seed."""
  pairs = data.read_positions(range(data.num_examples))
  examples = [raw for example_id, raw in pairs if example_id in ids]
  x = np.stack([np.concatenate([[1], raw['x']]) for raw in examples])
  y = np.array([raw['y'] for raw in examples])
  hessian = x.T @ x / len(x) + l2_weight * np.eye(x.shape[1])
  theta = np.linalg.solve(hessian, x.T @ y / len(x)).astype(np.float32)
  return {'bias': theta[0], 'weights': theta[1:]}


def preprocess(raw, fault=''):
  if fault == 'other_preprocessing':
    return {'x': 2 * raw['x'], 'y': raw['y']}
  if fault == 'large_features':
    return {'x': np.resize(raw['x'], 1 << 16), 'y': raw['y']}
  record = raw[ID_KEY].endswith('__50')
  if fault == 'foreign' and 'train' in raw[ID_KEY]:
    raise KeyError('image')  # As another task's examples are read.
  if fault == 'slow_examples':
    time.sleep(0.03)
  if fault == 'killing_example' and record:
    assert multiprocessing.parent_process(), 'this would kill the tests'
    os.kill(os.getpid(), signal.SIGKILL)
  if fault == 'endless_example' and record:
    time.sleep(1000)
  if fault == 'bad_example' and record:
    raise ValueError('no such thing')
  if fault == 'nan_example' and record:
    return {'x': raw['x'] * np.nan, 'y': raw['y']}
  return features(raw)


def features(raw):
  """x and y of an example of any kind of corpus."""
  x = raw['x'] if 'x' in raw else [float(raw[f'x{i}']) for i in range(5)]
  return {'x': np.asarray(x, np.float32), 'y': float(raw['y'])}


def not_a_task():
  """Returns something else, as a user might by mistake."""
  return 3


class Points(datasets.MadeUpDataset):
  """Random points near a plane."""

  FEATURES: ClassVar = {
    'x': tfds.features.Tensor(shape=(NUM_FEATURES,), dtype=np.float32),
    'y': tfds.features.Scalar(dtype=np.float32),
  }

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(NUM_TRAIN, seed=0),
      'test': self._generate_examples(NUM_TEST, seed=1),
    }

  def _generate_examples(self, count, seed):
    for key, (x, y) in enumerate(zip(*points(count, seed), strict=True)):
      yield key, {'x': x, 'y': y}


def points(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  generator = np.random.default_rng(seed)
  # Columns of different size, so that eigenvalues differ.
  x = generator.normal(size=(count, NUM_FEATURES)) * [3, 2, 1.5, 1, 0.5]
  y = x @ [1, -1, 0.5, 2, 0] + generator.normal(size=count)
  return x.astype(np.float32), y.astype(np.float32)


def prepare(workdir: Path) -> None:
  """Writes the corpus and the ridge solution, which is the trained model."""
  datasets.prepare(Points, workdir / 'data', 3)
  hessian, design, y = closed_form()
  solution = np.linalg.solve(hessian, design.T @ y / len(y))
  save_arrays(
    str(workdir / 'checkpoint'),
    {
      'bias': np.float32(solution[0]),
      'weights': solution[1:].astype(np.float32),
    },
  )


def closed_form() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Hessian, design matrix (bias first) and targets of the corpus."""
  x, y = points(NUM_TRAIN, seed=0)
  design = np.concatenate([np.ones((len(x), 1)), x], axis=1)
  hessian = design.T @ design / len(x) + L2_WEIGHT * np.eye(NUM_FEATURES + 1)
  return hessian, design, y


def closed_form_gradients(count: int, seed: int, params) -> np.ndarray:
  """[count, NUM_FEATURES + 1] gradients, bias first."""
  x, y = points(count, seed)
  design = np.concatenate([np.ones((count, 1)), x], axis=1)
  theta = np.concatenate([[params['bias']], params['weights']])
  return design * (design @ theta - y)[:, None]

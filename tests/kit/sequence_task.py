"""Sums over words: sequences of many lengths, whose padding has no weight."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from pipeline import FileCorpus, Task

NUM_EXAMPLES = 60
NUM_WORDS = 12
LONGEST = 40


def write(path: Path) -> None:
  """Texts of 1 to 40 words, with a target each."""
  generator = np.random.default_rng(0)
  lines = []
  for _ in range(NUM_EXAMPLES):
    length = int(generator.integers(1, LONGEST + 1))
    words = generator.integers(1, NUM_WORDS, length).tolist()
    text = ' '.join(f'w{word}' for word in words)
    y = float(generator.normal())
    lines.append(json.dumps({'words': words, 'y': y, 'text': text}))
  path.write_text('\n'.join(lines))


def parameters():
  generator = np.random.default_rng(1)
  return {
    'embedding': generator.normal(size=(NUM_WORDS, 4)).astype(np.float32),
    'out': generator.normal(size=4).astype(np.float32),
  }


def make_task(
  path: str, buckets: str = '', padded_to: int = 0, fault: str = ''
) -> Task:
  """The task.

  Args:
    path: of the texts.
    buckets: separated by commas.
    padded_to: one length for all texts, by the task itself.
    fault: a way in which it can be wrong.
  """

  def loss(params, features):
    hidden = jnp.tanh(params['embedding'][features['words']])
    mask = features['mask']
    if fault == 'no_mask':
      mask = jnp.ones_like(mask)
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    return jnp.square(mean @ params['out'] - features['y'])

  def preprocess(raw):
    words = np.array(raw['words'], np.int32)
    missing = max(0, padded_to - len(words))
    return {
      'mask': np.pad(np.ones(len(words), np.float32), (0, missing)),
      'words': np.pad(words, (0, missing)),
      'y': np.float32(raw['y']),
    }

  names = () if padded_to else ('words', 'mask')
  return Task(
    name='words',
    load_parameters=parameters,
    per_example_loss=loss,
    corpus=FileCorpus(path),
    preprocess=preprocess,
    sequences=('wrods',) if fault == 'unknown' else names,
    buckets=tuple(map(int, buckets.split(','))) if buckets else (),
  )

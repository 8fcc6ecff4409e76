"""A loss that is a sum over tokens: each word predicts a number from two."""

from collections.abc import Sequence
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from launch import cli
from pipeline import FileCorpus, Task

NUM_WORDS = 12
WIDTH = 5


def write(path: Path, num_examples: int = 40) -> None:
  """Texts of 2 to 20 words, the first few of which do not count."""
  generator = np.random.default_rng(0)
  lines = []
  for _ in range(num_examples):
    length = int(generator.integers(2, 21))
    words = generator.integers(1, NUM_WORDS, length).tolist()
    counts = (np.arange(length) >= length // 4).astype(int).tolist()
    lines.append(json.dumps({'words': words, 'counts': counts}))
  path.write_text('\n'.join(lines))


def parameters(seed: int):
  generator = np.random.default_rng(seed)
  shapes = {'kernel': (WIDTH, 4), 'bias': (4,), 'out': (4, 2)}
  return {
    name: generator.normal(size=shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def make_task(path: str, seed: str = '1', fault: str = '') -> Task:
  """The task.

  Args:
    path: of the texts.
    seed: of the parameters.
    fault: a way in which its tokens can be wrong.
  """
  known = np.random.default_rng(7).normal(size=(NUM_WORDS, WIDTH))

  def token_losses(params, features):
    inputs = jnp.float32(known)[features['words']]
    # Of a word and the one before.
    inputs += jnp.pad(inputs, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    hidden = jnp.tanh(inputs @ params['kernel'] + params['bias'])
    found = hidden @ params['out']
    targets = jnp.stack([features['words'] % 3, features['words'] % 2], -1)
    losses = jnp.square(found - targets).sum(-1)
    return losses * features['counts']

  def doubled(params, features):
    return 2 * token_losses(params, features)

  def preprocess(raw):
    return {
      'words': np.array(raw['words'], np.int32),
      'counts': np.array(raw['counts'], np.float32),
    }

  def token_texts(raw):
    texts = [f'w{word}' for word in raw['words']]
    return texts * 99 if fault == 'many_texts' else texts

  losses = {'none': None, 'other_sum': doubled}.get(fault, token_losses)
  return Task(
    name='tokens',
    load_parameters=lambda: parameters(int(seed)),
    per_example_loss=lambda *x: token_losses(*x).sum(axis=1),
    corpus=FileCorpus(path),
    preprocess=preprocess,
    sequences=('words', 'counts'),
    row_columns=lambda raw: {'text': ' '.join(token_texts(raw))[:60]},
    token_losses=losses,
    token_texts=token_texts,
  )


def make_index(
  place: Path,
  *,
  texts: Path | None = None,
  seed: int = 1,
  fit: Sequence[str] = ('--coordinates_per_layer', '8'),
  project: Sequence[str] = (),
) -> Path:
  """An index of the texts.

  Args:
    place: directory for basis and index.
    texts: that were written; None to write them there, too.
    seed: of the parameters.
    fit: flags of the basis, of layers by default.
    project: flags of the projection.
  """
  if texts is None:
    texts = place / 'texts.jsonl'
    write(texts)
  task = [
    *('--task', 'tests.kit.token_task:make_task'),
    *('--task_arg', f'path={texts}', '--task_arg', f'seed={seed}'),
  ]
  basis, index = f'{place}/basis', f'{place}/index'
  assert cli.main(['fit-basis', *task, '--out', basis, *fit, '--json']) == 0
  where = ['--basis', basis, '--index', index]
  assert cli.main(['project', *task, *where, *project, '--json']) == 0
  return place / 'index'

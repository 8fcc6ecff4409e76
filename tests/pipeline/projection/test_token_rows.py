"""An index of tokens against one of whole examples."""

import json

import numpy as np
import pytest

from pipeline import open_index
from tests.kit import token_task


@pytest.fixture(name='corpus', scope='module')
def fixture_corpus(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokens') / 'texts.jsonl'
  token_task.write(path)
  silent = {'words': [3, 4, 5], 'counts': [0, 0, 0]}
  path.write_text(f'{path.read_text()}\n{json.dumps(silent)}')
  return path


@pytest.fixture(name='command')
def fixture_command(corpus, influence):
  task = [
    *('--task', 'tests.kit.token_task:make_task'),
    *('--task_arg', f'path={corpus}'),
  ]

  def run(name, *arguments):
    done = influence(name, *task, *arguments, '--json')
    assert done.status == 0, done.stderr
    return done.json

  return run


@pytest.fixture(name='basis', params=['kronecker', 'arnoldi'])
def fixture_basis(request, command, tmp_path):
  few = {
    'kronecker': ['--coordinates_per_layer', 8],
    'arnoldi': ['--projection_dim', 5, '--num_iterations', 8],
  }
  method = ['--method', request.param, *few[request.param]]
  command('fit-basis', '--out', tmp_path / 'b', *method)
  return ['--basis', tmp_path / 'b']


def test_tokens_add_up_to_examples(command, basis, tmp_path, corpus):
  whole, tokens = ['--index', tmp_path / 'i'], ['--index', tmp_path / 't']
  command('project', *basis, *whole)
  few = ['--range_size', 200, '--max_rejected_fraction', 0.1]
  done = command('project', *basis, *tokens, '--per_token', *few)
  # Of one text no token counts.
  assert done['num_rejected'] == 1
  again = command('project', *basis, *tokens, '--per_token', *few)
  assert again['generation'] == done['generation']
  examples, index = (open_index(str(tmp_path / name)) for name in 'it')
  assert index.has_token_rows
  assert len(index.manifest.shards) > 1
  rows, expected = index.rows(), examples.rows()
  lines = [json.loads(line) for line in corpus.read_text().splitlines()]
  texts = [
    f'w{word}'
    for line in lines
    for word, counts in zip(line['words'], line['counts'], strict=True)
    if counts
  ]
  assert rows['token'].to_pylist() == texts
  ids = np.array(rows['id'].to_pylist())
  vectors, losses = index.projections(), rows['loss'].to_numpy()
  close = {'rtol': 1e-4, 'atol': 1e-4}  # float32 sums in another order.
  for place, example_id in enumerate(expected['id'].to_pylist()):
    own = ids == example_id
    total = vectors[own].sum(axis=0)
    np.testing.assert_allclose(total, examples.vectors([place])[0], **close)
    loss = expected['loss'][place].as_py()
    np.testing.assert_allclose(losses[own].sum(), loss, **close)
    positions = rows['position'].to_numpy()[own]
    assert (np.diff(positions) > 0).all()


def test_they_are_searched_as_any_rows(command, influence, basis, tmp_path):
  index = ['--index', tmp_path / 't']
  more = ['--per_token', '--max_rejected_fraction', 0.1]
  command('project', *basis, *index, *more)
  assert influence('verify', *index).status == 0
  ask = ['--query_split', 'train[:2]', *index, '--k', 4]
  found = command('topk', *ask, '--where', 'position > 1')['results']
  assert len(found) == 2 * 2 * 4
  assert all(row['position'] > 1 and row['token'] for row in found)
  for flag in ('--tokens', '--exclude_self', '--certify'):
    line = influence('topk', *ask, flag).error_line
    assert f'has a row for each token; {flag[2:]} needs' in line


def test_a_task_without_tokens_has_none(influence, task_flags, tmp_path):
  made = influence(
    *('fit-basis', *task_flags, '--out', tmp_path / 'other'),
    *('--coordinates_per_layer', 4),
  )
  assert made.status == 0, made.stderr
  where = ['--basis', tmp_path / 'other', '--index', tmp_path / 'i']
  line = influence('project', *task_flags, *where, '--per_token').error_line
  assert 'has no tokens; give it token_losses and token_texts' in line

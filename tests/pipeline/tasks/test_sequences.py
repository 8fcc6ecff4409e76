"""Sequences of many lengths give the index that one padded shape gives."""

import numpy as np
import pytest

from influence_core import errors
from influence_core.projection import check, projector as gradient_projection
from pipeline import open_index
from pipeline.index import format as index_format
from pipeline.tasks import loaded_task, sequence_lengths
from pipeline.tasks.reference import TaskReference
from tests.kit import sequence_task

DIM = 8


@pytest.fixture(scope='module', name='texts')
def fixture_texts(tmp_path_factory):
  path = tmp_path_factory.mktemp('texts') / 'texts.jsonl'
  sequence_task.write(path)
  return path


def flags(texts, **arguments):
  named = {'path': texts, **arguments}
  given = [f'--task_arg={name}={value}' for name, value in named.items()]
  return ['--task', 'tests.kit.sequence_task:make_task', *given]


@pytest.fixture(name='make')
def fixture_make(influence, texts, tmp_path):
  """Fits and projects; gives the index and its path."""

  def run(name, *more, **arguments):
    task, basis = flags(texts, **arguments), tmp_path / f'{name}-basis'
    fitted = influence(
      *('fit-basis', *task, '--out', basis, '--projection_dim', DIM),
      *('--keep_negative', '--max_rejected_fraction', 1),
    )
    assert fitted.status == 0, fitted.stderr
    where = ('--basis', basis, '--index', tmp_path / name)
    done = influence('project', *task, *where, *more)
    assert done.status == 0, done.stderr
    return open_index(str(tmp_path / name)), done

  return run


@pytest.mark.slow
def test_the_index_is_that_of_one_shape(make, influence, texts, tmp_path):
  one, _ = make('one', padded_to=sequence_task.LONGEST)
  some, done = make('some', buckets='16,32,40')
  assert 'sequences are padded to 16 (' in done.stderr
  found, _ = make('found', '--range_size', 7)
  positions = range(sequence_task.NUM_EXAMPLES)
  expected = one.vectors(positions)
  for index in (some, found):
    assert index.rows(positions, ['id']) == one.rows(positions, ['id'])
    # Eigenvalues and vectors up to sign, from float32 sums in other orders.
    np.testing.assert_allclose(index.eigenvalues, one.eigenvalues, rtol=1e-4)
    np.testing.assert_allclose(
      np.abs(index.vectors(positions)), np.abs(expected), atol=2e-4
    )
  # Other buckets are no reason to project again.
  again = influence(
    *('project', *flags(texts, buckets='20,40')),
    *('--basis', tmp_path / 'some-basis', '--index', tmp_path / 'some'),
  )
  assert '1 ranges reused, 0 recomputed' in again.stdout


@pytest.mark.slow
def test_longer_sequences_are_rejected_by_name(make):
  index, _ = make('short', '--max_rejected_fraction', 1, buckets='4,8,36')
  assert 0 < index.manifest.num_rejected < 20
  rejected = [
    reason
    for shard in index.manifest.shards
    for reason in index_format.read_rejected(index.path, shard).values()
  ]
  assert all(
    'the largest bucket is 36; add a larger one' in x for x in rejected
  )


@pytest.mark.slow
def test_certified_answers_are_those_in_float32(make, influence, texts):
  make('exact', buckets='16,40')
  index, _ = make('int8', '--vector_dtype', 'int8', buckets='16,40')
  topk = ['topk', *flags(texts, buckets='16,40'), '--query_split', 'train[:3]']
  topk += ['--k', 5, '--json', '--index']
  expected = influence(*topk, index.path.replace('int8', 'exact'))
  found = influence(*topk, index.path, '--certify')
  for a, b in zip(found.json['results'], expected.json['results'], strict=True):
    assert a['id'] == b['id']
    # Queries are projected by programs for other numbers of examples.
    assert a['score'] == pytest.approx(b['score'], rel=1e-6)
    assert a['certified']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'fault': 'no_mask'}, 'give padding no weight, with a mask'),
    ({'fault': 'unknown'}, "sequences has 'wrods', expected arrays among"),
    ({'buckets': '8,4'}, 'expected rising positive lengths'),
    ({'buckets': '0,4'}, 'expected rising positive lengths'),
  ],
)
def test_mistakes_are_told_before_work(influence, texts, arguments, message):
  outcome = influence('fit-basis', *flags(texts, **arguments), '--out', '/x')
  assert message in outcome.error_line


def test_each_shape_has_a_program_and_the_plain_gradient(texts):
  task = TaskReference(
    'tests.kit.sequence_task:make_task', {'path': str(texts)}
  )
  loaded = loaded_task.LoadedTask.load(task)
  generator = np.random.default_rng(0)
  vectors = {
    path: generator.normal(size=(3, *leaf.shape)).astype(np.float32)
    for path, leaf in loaded.selected.items()
  }
  projector = gradient_projection.GradientProjector(
    loaded.task.per_example_loss,
    loaded.params,
    eigenvectors=vectors,
    features=loaded.planned_features,
  )
  corpus = loaded.task.corpus
  examples = corpus.read_positions(range(corpus.num_examples))
  lengths = set()
  for batch in loaded.preprocess_by_length(examples, 8):
    lengths.add(batch.features['words'].shape[1])
    check.check_projector(
      projector,
      loaded.task.per_example_loss,
      loaded.params,
      eigenvectors=vectors,
      features=batch.features,
    )
  assert lengths == {16, 24, 32, 48}


def test_a_length_that_needs_another_arrangement_is_refused(texts):
  """One position only: the layer is applied to the basis instead."""
  features = {'x': np.ones((2, 6, 3), np.float32)}
  projector = gradient_projection.GradientProjector(
    lambda params, f: (f['x'] @ params['w']).sum((1, 2)),
    {'w': np.ones((3, 5), np.float32)},
    eigenvectors={'w': np.ones((2, 3, 5), np.float32)},
    features=features,
  )
  assert projector.project({'x': features['x'][:, :2]}).losses.shape == (2,)
  with pytest.raises(errors.InputError, match='pad such examples'):
    projector.project({'x': features['x'][:, :1]})


def test_lengths_that_are_found_waste_at_most_a_third():
  for length in range(1, 5000):
    size = sequence_lengths.bucket(length, ())
    assert size >= length
    assert size == 16 or (size - length) / size < 1 / 3
  assert len({sequence_lengths.bucket(x, ()) for x in range(1, 4097)}) == 17

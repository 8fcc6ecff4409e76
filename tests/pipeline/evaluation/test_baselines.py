"""Baselines of an index, beside what the examples themselves give."""

import numpy as np
import pyarrow as pa
import pytest

from influence_core import errors
from pipeline import open_index
from pipeline.evaluation import baselines, bm25
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  vector_codec,
)
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference
from tests.kit import linear_task, sequence_task

NUM_TEXTS = sequence_task.NUM_EXAMPLES - 10
ZEROS = np.zeros(NUM_TEXTS, np.float32)
KNOWN = {'dtype': 'float32'}


@pytest.fixture(scope='module', name='texts')
def fixture_texts(tmp_path_factory):
  """Texts of many lengths: an index of all but the first ten, and the task."""
  path = tmp_path_factory.mktemp('texts')
  sequence_task.write(path / 'texts.jsonl')
  task = TaskReference(
    'tests.kit.sequence_task:make_task', {'path': str(path / 'texts.jsonl')}
  )
  loaded = loaded_task.LoadedTask.load(task)
  [source] = loaded.task.corpus.source_shards()
  fingerprint = index_format.range_fingerprint(
    loaded.task.corpus.shard_fingerprint(source.name), KNOWN
  )
  rows = pa.table(
    {
      'id': [f'{source.name}__{x}' for x in range(10, source.stop)],
      **dict.fromkeys(('loss', 'squared_gradient_norm'), ZEROS),
    }
  )
  shard = index_format.write_shard(
    str(path / 'index'),
    index_format.ExampleRange(source.name, 10, source.stop, fingerprint),
    index_format.ShardContent(np.zeros((len(rows), 1), np.float32), rows, {}),
    vector_codec.VectorCodec('float32', np.ones(1)),
  )
  provenance = manifest_lib.Provenance({}, '', (1.0,), KNOWN)
  manifest_lib.publish(str(path / 'index'), provenance, (shard,))
  return open_index(str(path / 'index')), loaded


@pytest.fixture(scope='module', name='points')
def fixture_points(workdir, index):
  task = TaskReference(
    'tests.kit.linear_task:make_task', {'workdir': str(workdir)}
  )
  return open_index(str(index)), loaded_task.LoadedTask.load(task)


def cosines(queries, examples):
  one, other = (
    x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, examples)
  )
  return one @ other.T


def test_embedding_of_a_linear_model_is_its_input(points):
  told = []
  found, ids = baselines.scores(
    'embedding', *points, 'test[:6]', progress=lambda *x: told.append(x)
  )
  assert ids == points[0].rows(columns=['id'])['id'].to_pylist()
  queries, _ = linear_task.points(linear_task.NUM_TEST, seed=1)
  examples, _ = linear_task.points(linear_task.NUM_TRAIN, seed=0)
  expected = cosines(queries[:6], examples)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert told[-1] == (linear_task.NUM_TRAIN, linear_task.NUM_TRAIN)


def test_embedding_of_padded_texts_is_the_mean_of_their_words(texts):
  index, loaded = texts
  found, ids = baselines.scores('embedding', index, loaded, 'train[10:15]')
  table = np.tanh(sequence_task.parameters()['embedding'])
  raws = dict(loaded.task.corpus.read_ids(ids))
  means = np.array([table[raws[x]['words']].mean(axis=0) for x in ids])
  np.testing.assert_allclose(found, cosines(means[:5], means), atol=1e-5)


def test_bm25_is_of_the_texts(texts):
  index, loaded = texts
  found, ids = baselines.scores('bm25', index, loaded, 'train[10:15]')
  raws = dict(loaded.task.corpus.read_ids(ids))
  every = [raws[example_id]['text'] for example_id in ids]
  np.testing.assert_array_equal(found, bm25.scores(every[:5], every))
  # Every text is most like itself, or like one that has it in itself.
  assert (np.diag(found) > np.median(found, axis=1)).all()


@pytest.mark.parametrize(
  ('name', 'column'),
  [('loss', 'loss'), ('gradient_norm', 'squared_gradient_norm')],
)
def test_what_rows_say_is_the_same_for_every_query(points, name, column):
  found, ids = baselines.scores(name, *points, 'test[:6]')
  assert found.shape == (6, len(ids))
  expected = points[0].rows(columns=[column])[column].to_numpy()
  np.testing.assert_array_equal(found, np.tile(expected, (6, 1)))


def test_numbers_are_no_texts(points):
  with pytest.raises(errors.InputError, match='examples have no words'):
    baselines.scores('bm25', *points, 'test[:6]')


def test_a_corpus_that_changed_is_refused(texts, monkeypatch):
  corpus = type(texts[1].task.corpus)
  monkeypatch.setattr(corpus, 'shard_fingerprint', lambda *_: 'another')
  with pytest.raises(errors.InputError, match='again or leave bm25 out'):
    baselines.scores('bm25', *texts, 'train[10:15]')

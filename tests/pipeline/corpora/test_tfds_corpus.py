import os
import shutil

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from influence_core import errors
from pipeline.corpora import tfds_corpus as corpus_lib
from pipeline.corpora.corpus import UndecodableExample
from tests.kit import linear_task


@pytest.fixture
def data_dir(workdir, tmp_path):
  """A copy that a test may damage."""
  shutil.copytree(workdir / 'data', tmp_path / 'data')
  return tmp_path / 'data'


def open_corpus(data_dir, split='train', dataset='points'):
  return corpus_lib.TfdsCorpus(dataset, split, str(data_dir))


def test_ids_and_content_do_not_depend_on_the_way_of_reading(workdir):
  corpus = open_corpus(workdir / 'data')
  assert corpus.num_examples == linear_task.NUM_TRAIN
  by_position = dict(corpus.read_positions(range(corpus.num_examples)))
  by_range = {}
  for shard in corpus.source_shards():
    by_range |= dict(corpus.read_range(shard.name, shard.start, shard.stop))
  assert list(by_position) == list(by_range)
  x, y = linear_task.points(linear_task.NUM_TRAIN, seed=0)
  for row, (example_id, raw) in enumerate(by_position.items()):
    assert raw['tfds_id'] == example_id
    np.testing.assert_array_equal(raw['x'], x[row])
    np.testing.assert_array_equal(by_range[example_id]['y'], y[row])


def test_slices_keep_the_ids_of_the_whole_split(workdir):
  whole = open_corpus(workdir / 'data')
  part = open_corpus(workdir / 'data', 'train[90:210]')
  ids = [name for name, _ in whole.read_positions(range(90, 210))]
  assert [name for name, _ in part.read_positions(range(120))] == ids
  shards = part.source_shards()
  assert sum(shard.stop - shard.start for shard in shards) == 120
  names = [
    name
    for shard in shards
    for name, _ in part.read_range(shard.name, shard.start, shard.stop)
  ]
  assert names == ids


# Ends of slices, which TFDS counts from the end where they are negative.
_ENDS = st.integers(-linear_task.NUM_TRAIN, linear_task.NUM_TRAIN) | st.none()


@hypothesis.settings(
  deadline=None,
  max_examples=60,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  st.lists(
    st.tuples(_ENDS, _ENDS).filter(lambda ends: ends != (None, None)),
    min_size=1,
    max_size=4,
  ),
  st.data(),
)
def test_any_split_is_read_as_tfds_reads_it(workdir, slices, data):
  def shown(end):
    return '' if end is None else end

  split = '+'.join(f'train[{shown(a)}:{shown(b)}]' for a, b in slices)
  records = range(linear_task.NUM_TRAIN)
  expected = [x for a, b in slices for x in records[slice(a, b)]]
  is_reversed = any(
    slice(a, b).indices(len(records))[0] > slice(a, b).indices(len(records))[1]
    for a, b in slices
  )
  corpus = open_corpus(workdir / 'data', split)
  if is_reversed or len(set(expected)) < len(expected) or not expected:
    with pytest.raises(errors.InputError, match='split'):
      corpus.check()
  else:
    _check_same_reading(corpus, data)


def _check_same_reading(corpus, data):
  """Against TFDS's own reader: in order, and at random positions."""
  theirs = corpus._builder.as_data_source(corpus.split)
  assert corpus.num_examples == len(theirs)
  mine = list(corpus.read_positions(range(len(theirs))))
  for (_, raw), other in zip(mine, theirs, strict=True):
    np.testing.assert_array_equal(raw['x'], other['x'])
  ids = [
    example_id
    for shard in corpus.source_shards()
    for example_id, _ in corpus.read_range(shard.name, shard.start, shard.stop)
  ]
  assert [example_id for example_id, _ in mine] == ids
  some = data.draw(st.lists(st.integers(0, len(theirs) - 1), max_size=20))
  assert [x for x, _ in corpus.read_positions(some)] == [ids[x] for x in some]


@pytest.mark.parametrize(
  'split', ['test[:3]+test[10:13]', 'test[10:13]+test[:5]']
)
def test_parts_of_one_file_keep_their_places(workdir, split):
  corpus = open_corpus(workdir / 'data', split)
  count = corpus.num_examples
  x, _ = linear_task.points(linear_task.NUM_TEST, seed=1)
  rows = np.array([raw['x'] for _, raw in corpus.read_positions(range(count))])
  expected = {
    'test[:3]+test[10:13]': [0, 1, 2, 10, 11, 12],
    'test[10:13]+test[:5]': [10, 11, 12, 0, 1, 2, 3, 4],
  }[split]
  np.testing.assert_array_equal(rows, x[expected])


def test_a_split_with_an_example_twice_is_refused(workdir):
  corpus = open_corpus(workdir / 'data', 'test[:3]+test[2:5]')
  with pytest.raises(
    errors.InputError, match=r'has records 2 to 2 of .* twice'
  ):
    corpus.check()


def test_newest_version_unless_one_is_named(data_dir):
  shutil.copytree(data_dir / 'points' / '1.0.0', data_dir / 'points' / '0.9.0')
  assert '1.0.0' in str(open_corpus(data_dir)._builder.data_path)
  older = open_corpus(data_dir, dataset='points:0.9.0')
  assert '0.9.0' in str(older._builder.data_path)
  with pytest.raises(errors.InputError, match='no prepared dataset points:2'):
    open_corpus(data_dir, dataset='points:2.0.0').check()


def test_fingerprint_follows_the_file(data_dir):
  corpus = open_corpus(data_dir)
  shards = [shard.name for shard in corpus.source_shards()]
  before = [corpus.shard_fingerprint(name) for name in shards]
  assert before == [corpus.shard_fingerprint(name) for name in shards]
  os.utime(data_dir / 'points' / '1.0.0' / shards[1])
  after = [corpus.shard_fingerprint(name) for name in shards]
  changed = [a != b for a, b in zip(before, after, strict=True)]
  assert changed == [False, True, False]


def test_missing_file_is_named(data_dir):
  corpus = open_corpus(data_dir)
  name = corpus.source_shards()[2].name
  (data_dir / 'points' / '1.0.0' / name).unlink()
  with pytest.raises(errors.InputError, match=f'{name} is missing'):
    open_corpus(data_dir).check()


def test_truncated_file_gives_no_examples_silently(data_dir):
  name = open_corpus(data_dir).source_shards()[0].name
  path = data_dir / 'points' / '1.0.0' / name
  path.write_bytes(path.read_bytes()[:-4096])
  examples = list(open_corpus(data_dir).read_range(name, 0, 3))
  assert len(examples) == 3
  for _, raw in examples:
    assert isinstance(raw, UndecodableExample)


def test_other_formats_are_refused(data_dir):
  path = data_dir / 'points' / '1.0.0' / 'dataset_info.json'
  text = path.read_text().replace('array_record', 'riegeli')
  path.write_text(text)
  with pytest.raises(errors.InputError, match='riegeli format, expected'):
    open_corpus(data_dir).check()

"""Every kind of corpus: the same examples, whatever the way of reading."""

import dataclasses
import io
import os

from apache_beam.io import tfrecordio
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from influence_core import errors
from pipeline import FileCorpus
from pipeline.corpora import extents, file_names, splits
from pipeline.corpora.corpus import SourceShard, UndecodableExample
from pipeline.index import reader as index_reader
from pipeline.storage import machine_cache
from tests.kit import corpus_files, datasets, linear_task
from tests.pipeline.storage.test_object_store import url
from tests.pipeline.storage.test_remote_files import upload

KINDS = (*corpus_files.TFDS_KINDS, *corpus_files.FILE_KINDS)
X, Y = linear_task.points(linear_task.NUM_TRAIN, seed=0)


@pytest.fixture(name='corpus', params=KINDS)
def fixture_corpus(request, workdir, tmp_path):
  return corpus_files.write(request.param, workdir, tmp_path / 'c')


@pytest.fixture(autouse=True)
def fixture_cache(monkeypatch, tmp_path):
  monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(tmp_path / 'cache'))


def read_all(corpus):
  return dict(corpus.read_positions(range(corpus.num_examples)))


def test_examples_do_not_depend_on_the_way_of_reading(corpus):
  corpus.check()
  examples = read_all(corpus)
  assert len(examples) == len(X)
  found = [linear_task.features(raw) for raw in examples.values()]
  np.testing.assert_array_equal([x['x'] for x in found], X)
  np.testing.assert_array_equal([x['y'] for x in found], Y)
  assert all(raw['tfds_id'] == name for name, raw in examples.items())
  by_range = {}
  for shard in corpus.source_shards():
    for start in range(shard.start, shard.stop, 7):
      stop = min(start + 7, shard.stop)
      by_range |= dict(corpus.read_range(shard.name, start, stop))
  assert list(by_range) == list(examples)
  ids = list(examples)
  some = [200, 3, 199, 3, 150, 0, 302, 101]
  picked = list(corpus.read_ids([ids[x] for x in some]))
  assert [name for name, _ in picked] == [ids[x] for x in some]
  for number, (_, raw) in zip(some, picked, strict=True):
    np.testing.assert_array_equal(linear_task.features(raw)['x'], X[number])


def test_slices_keep_ids(corpus):
  ids = list(read_all(corpus))
  part = corpus.with_split('train[:3]+train[90:210]')
  part.check()
  assert list(read_all(part)) == [*ids[:3], *ids[90:210]]
  with pytest.raises(errors.InputError, match='has no split'):
    corpus.with_split('nothing').check()
  with pytest.raises(errors.InputError, match='twice, expected'):
    corpus.with_split('train[:3]+train[2:4]').check()


def test_fingerprints_follow_the_files(corpus):
  names = list(dict.fromkeys(x.name for x in corpus.source_shards()))
  before = [corpus.shard_fingerprint(name) for name in names]
  os.utime(corpus_files.place_of(corpus, names[1]))
  after = [corpus.shard_fingerprint(name) for name in names]
  changed = [a != b for a, b in zip(before, after, strict=True)]
  assert changed == [False, True, False]


_SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=4)


@hypothesis.given(_SIZES, st.integers(0, 40), st.integers(0, 40))
def test_slices_of_files_are_those_of_lists(sizes, first, last):
  records = [(f'f{n}', r) for n, size in enumerate(sizes) for r in range(size)]
  files = {
    'a': [(f'f{n}', size) for n, size in enumerate(sizes)],
    'b': [('g', 2)],
  }
  first, last = min(first, len(records)), min(last, len(records))
  expected = records[first:last]
  split = f'a[{first}:{last}]'
  if not expected:
    with pytest.raises(errors.InputError):
      splits.choose(files, split, of='it')
    return
  shards = splits.choose(files, f'{split}+b', of='it')
  assert shards.pop() == SourceShard('g', 0, 2)
  found = [(x.name, r) for x in shards for r in range(x.start, x.stop)]
  assert found == expected


# What another writer of the format makes is read: Beam's.
def test_tfrecord_is_what_others_write():
  records = [b'', b'a' * 1000, os.urandom(77)]
  stream = io.BytesIO()
  for record in records:
    tfrecordio._TFRecordUtil.write_record(stream, record)
  assert stream.getvalue() == b''.join(map(corpus_files.frame, records))


@hypothesis.given(
  st.lists(st.lists(st.text('a",\n', max_size=5), min_size=2, max_size=2))
)
def test_lines_with_quotes_are_whole(rows):
  text = 'a,b\n' + ''.join(
    ','.join('"' + cell.replace('"', '""') + '"' for cell in row) + '\n'
    for row in rows
  )
  places = extents.quoted_lines(io.BytesIO(text.encode()))
  assert len(places) == len(rows) + 1


def damage(path, data):
  path.write_bytes(data)
  os.utime(path, (1, 1))


@pytest.mark.parametrize(
  ('kind', 'bad', 'reason'),
  [
    ('jsonl', b'{"x": [1, 2', 'is no JSON'),
    ('jsonl', b'[1, 2]', 'is list, expected an object'),
    ('csv', b'1,2', 'has 2 cells, expected 7'),
    ('csv', b'\xff\xfe,1', 'cannot be read'),
  ],
)
def test_damaged_rows_are_named_and_others_read(tmp_path, kind, bad, reason):
  path = tmp_path / f'a.{kind}'
  corpus_files.write_file(kind, path, X[:5], Y[:5])
  path.write_bytes(path.read_bytes() + bad + b'\n')
  found = list(FileCorpus(str(path)).read_positions(range(6)))
  assert [isinstance(x, UndecodableExample) for _, x in found] == [
    False
  ] * 5 + [True]
  assert reason in found[-1][1].reason


def test_truncated_tfrecord_ends_with_unreadable_examples(workdir, tmp_path):
  corpus = corpus_files.write('tfrecord', workdir, tmp_path / 'c')
  name = corpus.source_shards()[0].name
  path = tmp_path / 'c' / 'points' / '1.0.0' / name
  path.write_bytes(path.read_bytes()[:-10])
  found = [raw for _, raw in corpus.read_range(name, 98, 101)]
  bad = [isinstance(raw, UndecodableExample) for raw in found]
  assert bad == [False, False, True]
  data = bytearray(path.read_bytes())
  data[40] ^= 1  # Inside the first record.
  path.write_bytes(data)
  found = [raw for _, raw in corpus.read_range(name, 0, 2)]
  assert 'does not fit its checksum' in found[0].reason
  assert not isinstance(found[1], UndecodableExample)


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({}, 'has no files, expected'),
    ({'a.txt': b''}, 'has no files, expected'),
    ({'a.jsonl': b'', 'b.csv': b''}, 'has .csv and .jsonl files'),
    ({'a.jsonl': b''}, 'holds no example'),
    ({'a.parquet': b'PAR1'}, 'is no Parquet file'),
    ({'a.npz': b'PK'}, 'is no .npz file'),
    ({'a.arrow': b'ARROW'}, 'is no Arrow file'),
    ({'a.jsonl.gz': b'{}\n'}, 'cannot be decompressed'),
  ],
)
def test_files_that_are_none(tmp_path, files, message):
  for name, data in files.items():
    (tmp_path / name).write_bytes(data)
  with pytest.raises(errors.InputError, match=message):
    FileCorpus(str(tmp_path)).check()


def test_columns_that_are_asked_for(tmp_path):
  for kind in ('parquet', 'arrow', 'jsonl', 'csv', 'npz'):
    path = tmp_path / f'a.{kind}'
    corpus_files.write_file(kind, path, X[:3], Y[:3])
    [(_, raw)] = FileCorpus(str(path), columns=('y',)).read_positions([1])
    assert raw.keys() == {'y', 'tfds_id'}
    wrong = FileCorpus(str(path), columns=('z',))
    if kind in ('parquet', 'arrow', 'npz'):
      with pytest.raises(errors.InputError, match='no column'):
        list(wrong.read_positions([1]))
    else:  # Each row has columns of its own.
      [(_, raw)] = wrong.read_positions([1])
      assert 'has no column' in raw.reason


@pytest.mark.parametrize(
  ('name', 'split'),
  [
    ('train-00000-of-00008.parquet', 'train'),
    ('data/test-00000-of-00001.parquet', 'test'),
    ('validation/data-00000-of-00002.arrow', 'validation'),
    ('data-00000-of-00002.arrow', 'train'),
    ('dev.jsonl.gz', 'dev'),
    ('extra-00000-of-00001.npz', 'extra'),
    ('a/test/x.npy', 'test'),
    ('trainer.csv', 'train'),
    ('plain_text/train/0000.parquet', 'train'),
    ('texts.csv', 'train'),
  ],
)
def test_names_of_files_say_the_split(name, split):
  assert file_names.split_of(name) == split


def test_splits_of_a_directory(tmp_path):
  for place in ('train/data-00000-of-00001', 'test/data-00000-of-00001'):
    (tmp_path / place).parent.mkdir()
    count = 3 if place.startswith('train') else 2
    path = tmp_path / f'{place}.arrow'
    corpus_files.write_file('arrow', path, X[:count], Y[:count])
  (tmp_path / 'train' / 'state.json').write_text('{}')
  assert FileCorpus(str(tmp_path), 'train').num_examples == 3
  assert FileCorpus(str(tmp_path), 'test[1:]').num_examples == 1


def vectors(index):
  blocks = index_reader.Index(str(index)).read_blocks()
  return np.concatenate([block.vectors for block in blocks])


@pytest.mark.slow
def test_many_examples_have_the_same_vectors(
  influence, task_flags, basis, monkeypatch, tmp_path
):
  """10,000 as ArrayRecord, TFRecord, Parquet and JSON Lines, bit for bit."""
  monkeypatch.setattr(linear_task, 'NUM_TRAIN', 10_000)
  datasets.prepare(linear_task.Points, tmp_path / 'data', 3)
  found = {}
  for kind in ('array_record', 'tfrecord', 'tfds_parquet', 'parquet', 'jsonl'):
    made = corpus_files.write(kind, tmp_path, tmp_path / kind)
    is_tfds = kind in corpus_files.TFDS_KINDS
    done = influence(
      *('project', *task_flags, '--basis', basis, '--index', tmp_path / 'i'),
      *(
        '--task_arg',
        f'{"data_dir" if is_tfds else "files"}={tmp_path / kind}',
      ),
      *('--range_size', 4000, '--json'),
    )
    assert done.json['num_projected'] == made.num_examples == 10_000
    found[kind] = vectors(tmp_path / 'i')
  expected = found.pop('array_record')
  assert expected.shape == (10_000, 6)
  for kind, same in found.items():
    assert same.tobytes() == expected.tobytes(), kind


# What is only packed otherwise is read as the others are.
_PACKED = ('array_record', 'jsonl.gz', 'jsonl.zst', 'tsv.gz')


@pytest.mark.slow
@pytest.mark.parametrize('kind', [x for x in KINDS if x not in _PACKED])
def test_index_is_the_same_and_follows_the_files(
  influence, workdir, task_flags, basis, index, tmp_path, kind
):
  """Also when one file of three has changed."""
  made = corpus_files.write(kind, workdir, tmp_path / 'c')
  where = getattr(made, 'path', None)
  command = ['project', *task_flags, '--basis', basis]
  command += ['--index', tmp_path / 'i', '--range_size', 40, '--json']
  more = ('files', where) if where else ('data_dir', made.data_dir)
  command += ['--task_arg', '='.join(more)]
  done = influence(*command)
  assert done.status == 0, done.stderr
  np.testing.assert_array_equal(vectors(tmp_path / 'i'), vectors(index))
  assert influence(*command).json['num_projected'] == 0
  os.utime(corpus_files.place_of(made, made.source_shards()[1].name))
  again = influence(*command).json
  assert (again['num_ranges_reused'], again['num_ranges_recomputed']) == (6, 3)
  np.testing.assert_array_equal(vectors(tmp_path / 'i'), vectors(index))


@pytest.mark.slow
@pytest.mark.parametrize('kind', [*KINDS, *corpus_files.IMAGE_KINDS])
def test_every_kind_is_read_in_an_object_store(store, workdir, tmp_path, kind):
  local = corpus_files.write(kind, workdir, tmp_path / 'c')
  upload(tmp_path / 'c', 'c')
  field = 'path' if hasattr(local, 'path') else 'data_dir'
  remote = dataclasses.replace(local, **{field: url('c')})
  remote.check()
  mine, theirs = read_all(local), read_all(remote)
  assert list(mine) == list(theirs)
  for example_id, raw in mine.items():
    assert raw.keys() == theirs[example_id].keys()
    for name, value in raw.items():
      np.testing.assert_array_equal(value, theirs[example_id][name])

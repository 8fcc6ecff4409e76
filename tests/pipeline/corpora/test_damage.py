"""What can befall the files of any kind of corpus: a line, or rejections.

Never a traceback or the end of the process, and the other files are read as
before; where something is read that was replaced meanwhile, the fingerprint of
its source shard tells.
"""

import dataclasses
import functools
import os
import random
import shutil

import numpy as np
import pytest

from influence_core import errors
from pipeline import FileCorpus
from pipeline.corpora.corpus import UndecodableExample
from pipeline.storage import machine_cache
from tests.kit import corpus_files, linear_task

KINDS = (
  *corpus_files.TFDS_KINDS,
  *corpus_files.FILE_KINDS,
  *corpus_files.IMAGE_KINDS,
)
DAMAGES = {
  'empty': lambda data: b'',
  'half': lambda data: data[: len(data) // 2],
  'zeros': lambda data: bytes(len(data)),
  'random': lambda data: random.Random(0).randbytes(len(data)),
  'few_bytes': lambda data: (
    data[: len(data) // 2] + b'\xff\x00"' * 9 + data[len(data) // 2 + 27 :]
  ),
  'twice': lambda data: 2 * data,
  'gone': lambda data: None,
}


@pytest.fixture(autouse=True)
def fixture_cache(monkeypatch, tmp_path):
  monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(tmp_path / 'cache'))


def read_all(corpus):
  return dict(corpus.read_positions(range(corpus.num_examples)))


def damage(path, how):
  data = DAMAGES[how](path.read_bytes())
  if data is None:
    path.unlink()
  else:
    path.write_bytes(data)
    os.utime(path, (5, 5))


def check_outcome(corpus, whole, names):
  """A line, or all examples of other files with some rejected.

  Args:
    corpus: damaged.
    whole: the examples before.
    names: of the source shards that are not damaged.
  """
  found, told = {}, ''
  try:
    found = read_all(corpus)
  except errors.InputError as error:
    told = str(error)
  if told:
    assert '\n' not in told
    assert len(told) < 700
    return
  for example_id, raw in whole.items():
    if example_id.rpartition('__')[0] in names:
      np.testing.assert_equal(found[example_id], raw)
  for raw in found.values():
    if isinstance(raw, UndecodableExample):
      assert raw.reason
      assert ' at 0x' not in raw.reason
      assert '\n' not in raw.reason


@pytest.fixture(name='originals', scope='module')
def fixture_originals(workdir, tmp_path_factory):
  """A corpus of each kind, to be copied, and its examples."""

  @functools.cache
  def make(kind):
    corpus = corpus_files.write(
      kind, workdir, tmp_path_factory.mktemp('whole') / 'c'
    )
    return corpus, read_all(corpus)

  return make


def copy(corpus, directory):
  """The same corpus elsewhere, not listed yet."""
  field = 'path' if hasattr(corpus, 'path') else 'data_dir'
  shutil.copytree(getattr(corpus, field), directory)
  return dataclasses.replace(corpus, **{field: str(directory)})


@pytest.mark.parametrize('how', DAMAGES)
@pytest.mark.parametrize('kind', KINDS)
def test_damaged_files_are_told(originals, tmp_path, kind, how):
  original, whole = originals(kind)
  first, damaged, last = (x.name for x in original.source_shards())
  corpus = copy(original, tmp_path / 'c')
  path = corpus_files.place_of(corpus, damaged)
  if kind == 'labelled_images' and how != 'gone':
    path = path.parents[1] / 'metadata.csv'
  others = (first, last) if path.name != 'metadata.csv' else ()
  # Listed and read by this one; by another one only afterwards.
  next(corpus.read_positions([corpus.num_examples - 1]))
  damage(path, how)
  check_outcome(corpus, whole, others)
  check_outcome(dataclasses.replace(corpus), whole, others)


@pytest.mark.parametrize('kind', KINDS)
def test_replaced_files_have_other_fingerprints(originals, tmp_path, kind):
  """Others of the same kind, renamed into their place while they are read."""
  original, whole = originals(kind)
  corpus = copy(original, tmp_path / 'c')
  first, second, last = (x.name for x in corpus.source_shards())
  os.utime(corpus_files.place_of(corpus, last), (9, 9))
  next(corpus.read_positions([corpus.num_examples // 2]))
  before = corpus.shard_fingerprint(second)
  os.replace(
    corpus_files.place_of(corpus, last), corpus_files.place_of(corpus, second)
  )
  assert corpus.shard_fingerprint(second) != before
  check_outcome(corpus, whole, [first])


@pytest.mark.parametrize('kind', corpus_files.FILE_KINDS)
def test_other_columns_in_one_file_are_rejections(workdir, tmp_path, kind):
  """Or a line, where columns are asked for."""
  corpus = corpus_files.write(kind, workdir, tmp_path / 'c')
  name = corpus.source_shards()[1].name
  path = corpus_files.place_of(corpus, name)
  if kind == 'npy':
    path.rename(path.with_name(path.name.replace('x_', 'z_')))
    with pytest.raises(errors.InputError, match='has columns y, z, expected x'):
      read_all(dataclasses.replace(corpus))
    return
  x, y = linear_task.points(101, seed=0)
  corpus_files.write_file(kind, path, x, y, x_name='z')
  rejected = {}
  for example_id, raw in read_all(dataclasses.replace(corpus)).items():
    try:
      linear_task.features(raw)
    except KeyError as error:
      rejected[example_id] = error
  assert list(rejected) == [f'{name}__{record}' for record in range(101)]
  some = dataclasses.replace(corpus, columns=('x',))
  check_outcome(some, {}, ())


ODD_NAMES = (
  'a b',
  'ä 日本',
  '#1',
  'a%20b',
  'a?b*',
  '[a]{b}',
  'a::b',
  '~',
  '-a',
  'a\'b"c',
  'a\\b',
  'a__1',
  'file:a',
  '$HOME',
  'a=b,c;d&e',
)


@pytest.mark.parametrize('name', ODD_NAMES)
def test_odd_names(tmp_path, name):
  x, y = linear_task.points(3, seed=0)
  for kind in ('jsonl', 'csv.gz', 'parquet', 'arrow', 'npy', 'npz'):
    directory = tmp_path / kind / name
    directory.mkdir(parents=True)
    corpus_files.write_file(kind, directory / f'{name}.{kind}', x, y)
    corpus = FileCorpus(str(directory))
    corpus.check()
    found = read_all(corpus)
    assert len(found) == 3
    np.testing.assert_equal(dict(corpus.read_ids(list(found))), found)


def test_names_too_long_for_an_index_are_refused(tmp_path):
  for folder in ('a' * 100, 'b' * 100):
    (tmp_path / folder).mkdir()
  place = tmp_path / ('a' * 100) / ('b' * 100)
  place.mkdir()
  (place / 'a.jsonl').write_text('{"x": 1}\n')
  with pytest.raises(errors.InputError, match='a name of 209 bytes, expected'):
    FileCorpus(str(tmp_path)).check()

"""Images whose labels are in a table: in the folder, or elsewhere."""

import gzip
import json

import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core import errors
from pipeline import ImageFolderCorpus
from pipeline.corpora.corpus import UndecodableExample
from pipeline.storage import machine_cache

PIXELS = np.random.default_rng(0).integers(256, size=(5, 4, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def fixture_cache(monkeypatch, tmp_path):
  monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(tmp_path / 'cache'))


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  """Images 1 to 3 in the folder itself."""
  for number in (1, 2, 3):
    save(tmp_path / 'images' / f'{number}.png')
  return tmp_path / 'images'


def save(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(PIXELS).save(path)


def read_all(corpus):
  return dict(corpus.read_positions(range(corpus.num_examples)))


ROWS = [
  {'file_name': '3.png', 'label': 'three'},
  {'file_name': './1.png', 'label': 'one'},
  {'file_name': '2.png', 'label': None},
]
TEXT = 'file_name,label\n3.png,three\n./1.png,one\n2.png,\n'
TABLES = {
  'metadata.csv': lambda path: path.write_text(TEXT),
  'a.tsv.gz': lambda path: path.write_bytes(
    gzip.compress(TEXT.replace(',', '\t').encode())
  ),
  'metadata.jsonl': lambda path: path.write_text(
    ''.join(json.dumps(row) + '\n' for row in ROWS)
  ),
  'a.parquet': lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
}


@pytest.mark.parametrize('name', TABLES)
@pytest.mark.parametrize('is_inside', [True, False])
def test_rows_of_a_table_are_columns(folder, tmp_path, name, is_inside):
  path = (folder if is_inside else tmp_path) / name
  TABLES[name](path)
  labels = name if is_inside else str(path)
  corpus = ImageFolderCorpus(str(folder), labels=labels)
  corpus.check()
  found = read_all(corpus)
  assert list(found) == ['images__0', 'images__1', 'images__2']
  first, second, third = found.values()
  np.testing.assert_array_equal(first['image'], PIXELS)
  assert first.keys() == {'image', 'label', 'file', 'tfds_id'}
  assert (first['file'], first['label']) == ('1.png', 'one')
  assert not second['label']
  assert third['label'] == 'three'
  [(_, raw)] = corpus.with_split('train[1:2]').read_positions([0])
  assert raw['file'] == '2.png'


def test_tables_of_splits_begin_at_their_own_folders(tmp_path):
  folder = tmp_path / 'images'
  for split, count in (('train', 2), ('test', 1)):
    for number in range(count):
      save(folder / split / 'a' / f'{number}.png')
    text = ''.join(f'a/{x}.png,{split}{x}\n' for x in range(count))
    (folder / split / 'metadata.csv').write_text('file_name,label\n' + text)
  corpus = ImageFolderCorpus(str(folder), 'test', labels='metadata.csv')
  assert [x['label'] for x in read_all(corpus).values()] == ['test0']
  train = read_all(corpus.with_split('train'))
  assert [x['label'] for x in train.values()] == ['train0', 'train1']
  one = f'{folder}/train/metadata.csv'
  [(_, raw)] = ImageFolderCorpus(str(folder), labels=one).read_positions([1])
  assert (raw['file'], raw['label']) == ('train/a/1.png', 'train1')


def test_images_without_rows_and_rows_without_images_are_named(folder):
  text = 'file_name,label\n1.png,a\nb/4.png,d\n3.png,c\n'
  (folder / 'metadata.csv').write_text(text)
  found = read_all(ImageFolderCorpus(str(folder), labels='metadata.csv'))
  bad = {
    key: value.reason
    for key, value in found.items()
    if isinstance(value, UndecodableExample)
  }
  assert bad.keys() == {'images__1', 'b__0'}
  assert bad['images__1'] == 'no table has a row for 2.png'
  assert bad['b__0'].startswith('b/4.png: ')
  assert bad['b__0'].endswith('is missing')


def test_fingerprints_follow_the_labels_of_a_folder(folder):
  for place in ('a/1.png', 'b/1.png'):
    save(folder / place)
  table = folder / 'metadata.csv'
  rows = 'file_name,label\na/1.png,x\nb/1.png,x\n1.png,x\n'
  table.write_text(rows)
  corpus = ImageFolderCorpus(str(folder), labels='metadata.csv')

  def fingerprints(of):
    return [of.shard_fingerprint(name) for name in ('a', 'b', 'images')]

  before = fingerprints(corpus)
  assert before == fingerprints(corpus)
  table.write_text(rows.replace('b/1.png,x', 'b/1.png,other'))
  # A worker that was there before notices, too.
  for one in (corpus, ImageFolderCorpus(str(folder), labels='metadata.csv')):
    now = fingerprints(one)
    same = [x == y for x, y in zip(before, now, strict=True)]
    assert same == [True, False, True]
  save(folder / 'a' / '2.png')
  assert fingerprints(corpus)[0] != before[0]
  table.unlink()
  with pytest.raises(errors.InputError, match='is missing; write it again'):
    corpus.shard_fingerprint('a')


@pytest.mark.parametrize(
  ('text', 'labels', 'message'),
  [
    ('file_name,label\n', 'x.csv', 'has no table x.csv, expected one in it'),
    ('file_name,label\n', 'metadata.npz', 'has no table metadata.npz'),
    ('file_name,label\n', 'metadata.csv', 'but nothing, expected places such'),
    ('file_name,label\n1,x\n', 'metadata.csv', 'but 1, expected places such'),
    ('id,label\n1.png,x\n', 'metadata.csv', 'name this column file_name'),
    ('file_name,label\n,x\n', 'metadata.csv', 'expected the place of an'),
    ('file_name\n../1.png\n', 'metadata.csv', 'expected a place in the folder'),
    ('file_name\n1.png\n1.png\n', 'metadata.csv', 'rows 0 and 1 of .* are of'),
    ('file_name,image\n1.png,x\n', 'metadata.csv', 'has a column image, which'),
    ('file_name,a\n1.png,x\n2.png\n', 'metadata.csv', 'row 1 of .* cannot be'),
  ],
)
def test_tables_that_do_not_fit_are_refused(folder, text, labels, message):
  (folder / 'metadata.csv').write_text(text)
  with pytest.raises(errors.InputError, match=message):
    ImageFolderCorpus(str(folder), labels=labels).check()


def test_images_in_rows_of_two_tables_are_refused(folder):
  save(folder / 'a' / '1.png')
  (folder / 'metadata.csv').write_text('file_name\na/1.png\n')
  (folder / 'a' / 'metadata.csv').write_text('file_name\n1.png\n')
  with pytest.raises(errors.InputError, match='expected one; remove the other'):
    ImageFolderCorpus(str(folder), labels='metadata.csv').check()


def test_names_of_other_kinds_are_refused(folder):
  np.savez(folder / 'labels.npz', file_name=['1.png'])
  with pytest.raises(
    errors.InputError, match=r'labels is labels.npz, expected'
  ):
    ImageFolderCorpus(str(folder), labels='labels.npz').check()

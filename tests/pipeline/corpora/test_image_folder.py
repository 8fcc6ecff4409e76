"""A folder of images: classes, splits, what is damaged, what has changed."""

import numpy as np
from PIL import Image
import pytest

from influence_core import errors
from pipeline import ImageFolderCorpus
from pipeline.corpora.corpus import UndecodableExample

GENERATOR = np.random.default_rng(0)
COLOURED = GENERATOR.integers(256, size=(5, 4, 3), dtype=np.uint8)
GREY = GENERATOR.integers(256, size=(5, 4), dtype=np.uint8)


def save(path, pixels=COLOURED):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def read_all(corpus):
  return dict(corpus.read_positions(range(corpus.num_examples)))


def test_images_have_pixels_classes_and_places(tmp_path):
  save(tmp_path / 'dog' / 'a.png')
  save(tmp_path / 'cat' / 'b.png', GREY)
  save(tmp_path / 'cat' / 'a.PNG')
  (tmp_path / 'cat' / 'notes.txt').write_text('no image')
  corpus = ImageFolderCorpus(str(tmp_path))
  corpus.check()
  examples = read_all(corpus)
  assert list(examples) == ['cat__0', 'cat__1', 'dog__0']
  found = [(x['file'], x['class'], x['label']) for x in examples.values()]
  assert found == [
    ('cat/a.PNG', 'cat', 0),
    ('cat/b.png', 'cat', 0),
    ('dog/a.png', 'dog', 1),
  ]
  np.testing.assert_array_equal(examples['dog__0']['image'], COLOURED)
  np.testing.assert_array_equal(examples['cat__1']['image'][..., 0], GREY)
  part = read_all(corpus.with_split('train[1:]'))
  assert list(part) == ['cat__1', 'dog__0']


def test_classes_are_those_of_all_splits(tmp_path):
  for place in ('train/b/1.png', 'train/c/1.png', 'test/a/1.png'):
    save(tmp_path / place)
  test = read_all(ImageFolderCorpus(str(tmp_path), 'test'))
  assert [x['label'] for x in test.values()] == [0]
  train = read_all(ImageFolderCorpus(str(tmp_path)))
  assert [x['label'] for x in train.values()] == [1, 2]


def test_damaged_images_are_named(tmp_path):
  save(tmp_path / 'a' / '1.png')
  (tmp_path / 'a' / '2.png').write_bytes(b'PNG')
  found = list(read_all(ImageFolderCorpus(str(tmp_path))).values())
  assert not isinstance(found[0], UndecodableExample)
  assert found[1].reason.startswith('a/2.png: ')


def test_fingerprint_follows_the_class(tmp_path):
  for place in ('a/1.png', 'b/1.png'):
    save(tmp_path / place)
  before = ImageFolderCorpus(str(tmp_path))
  was = [before.shard_fingerprint(name) for name in 'ab']
  save(tmp_path / 'b' / '2.png')
  # A worker that was there before notices, too.
  for corpus in (before, ImageFolderCorpus(str(tmp_path))):
    now = [corpus.shard_fingerprint(name) for name in 'ab']
    assert [x == y for x, y in zip(was, now, strict=True)] == [True, False]


def test_folders_without_classes_are_refused(tmp_path):
  save(tmp_path / '1.png')
  with pytest.raises(errors.InputError, match='expected one for each class'):
    ImageFolderCorpus(str(tmp_path)).check()

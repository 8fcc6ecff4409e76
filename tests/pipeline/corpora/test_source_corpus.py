"""Any object with a length and items as a corpus."""

import pytest

from influence_core import errors
from pipeline import SourceCorpus
from pipeline.corpora.corpus import UndecodableExample


class Squares:
  def __init__(self, size):
    self._size = size

  def __len__(self):
    return self._size

  def __getitem__(self, index):
    if index == 3:
      raise KeyError('three')
    return {'x': index * index}


def make(split='train', version='1'):
  sources = {'train': Squares(6), 'test': [10, 20]}
  return SourceCorpus(sources, 'squares', version, split)


def test_examples_are_items():
  corpus = make()
  corpus.check()
  found = list(corpus.read_positions([5, 0, 3]))
  assert found[0] == ('squares-train__5', {'x': 25, 'tfds_id': found[0][0]})
  assert found[1][1]['x'] == 0
  assert found[2][1] == UndecodableExample("KeyError: 'three'")
  [(_, raw)] = make('test[1:]').read_positions([0])
  assert raw['example'] == 20
  with pytest.raises(errors.InputError, match='has no split'):
    make('absent').check()


class Endless(Squares):
  def __len__(self):
    return 2**63 - 1


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    (Endless(1), 'leave out repeat'),
    (iter([1]), 'is a list_iterator without length'),
    ([], 'holds no example'),
  ],
)
def test_sources_that_are_none(source, message):
  with pytest.raises(errors.InputError, match=message):
    SourceCorpus({'train': source}, 'a', '1').check()
  with pytest.raises(errors.InputError, match='expected one without /'):
    SourceCorpus({'train': source}, 'a/b', '1')


def test_nothing_is_an_example_that_cannot_be_read():
  corpus = SourceCorpus({'train': [1, None]}, 'a', '1')
  [_, (_, raw)] = corpus.read_positions([0, 1])
  assert 'the source has None' in raw.reason


def test_version_stands_for_what_is_in_it():
  name = make().source_shards()[0].name
  one, same, other = (
    make(version=version).shard_fingerprint(name) for version in ('1', '1', '2')
  )
  assert one == same != other
  assert make().to_json() == {
    'name': 'squares',
    'version': '1',
    'split': 'train',
  }

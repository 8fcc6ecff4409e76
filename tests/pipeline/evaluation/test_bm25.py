"""BM25 beside the formula, word by word."""

import collections
import math

import numpy as np
import pytest

from influence_core import errors
from pipeline.evaluation import bm25

DOCUMENTS = [
  'the cat sat on the mat',
  'The cats of a house, and a cat',
  '',
  'Straße 12: 猫 and a dog',
  'a a a a a a dog',
]


def by_formula(query, document):
  """With k1 = 1.2 and b = 0.75; words are separated by spaces here."""
  words = [
    x.lower().replace(',', '').replace(':', '').split() for x in DOCUMENTS
  ]
  mean_length = sum(map(len, words)) / len(words)
  own = collections.Counter(words[document])
  total = 0.0
  for word in query.lower().split():
    num_with = sum(word in x for x in words)
    rarity = math.log(1 + (len(words) - num_with + 0.5) / (num_with + 0.5))
    length = 0.25 + 0.75 * own.total() / mean_length
    total += rarity * own[word] * 2.2 / (own[word] + 1.2 * length)
  return total


def test_scores_are_those_of_the_formula():
  queries = ['a cat', 'cat cat dog', 'straße 猫 nowhere', 'nothing']
  found = bm25.scores(queries, iter(DOCUMENTS))
  expected = [
    [by_formula(query, document) for document in range(len(DOCUMENTS))]
    for query in queries
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert found.dtype == np.float32
  assert found[0, 2] == found[3].max() == 0


def test_texts_of_an_example_of_any_form():
  raw = {
    'tfds_id': 'train__3',
    'name': 'file.txt',
    'text': 'one',
    'image': np.zeros((2, 2)),
    'jpeg': b'\xff\xd8\xff',
    'label': 3,
    'question': {'text': b'two', 'tokens': np.array(['three', 'f\xfcnf'])},
    'answers': [b'six', None, {'text': np.array(b'seven', object)}],
  }
  found = bm25.text_of(raw, ['tfds_id', 'name'])
  assert found == 'one two three fünf six seven'


def test_examples_without_words_are_told():
  with pytest.raises(errors.InputError, match='have no words, expected texts'):
    bm25.scores(['cat'], ['', '!'])

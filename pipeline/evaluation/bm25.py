"""BM25: how many rare words two texts share, what search engines rank by.

By scikit-learn's counts of words, which are sparse and need no other package.

References:
  Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
  Beyond", 2009, equation 3.15; the weight of a word is that of Lucene, which is
  never negative.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction import text as sklearn_text

from influence_core import errors
from pipeline.corpora import corpus as corpus_lib

# The usual choices.
_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75
# Letters and digits of any script, also one alone.
_WORD = r'(?u)\w+'


def scores(queries: Sequence[str], documents: Iterable[str]) -> np.ndarray:
  """[num_queries, num_documents] float32, at least 0.

  Args:
    queries: texts; a word counts as often as it stands there.
    documents: texts, read once.

  Raises:
    errors.InputError: No document has a word.
  """
  counter = sklearn_text.CountVectorizer(token_pattern=_WORD)
  try:
    counts = counter.fit_transform(documents).astype(np.float64)
  except ValueError as error:  # Of an empty vocabulary.
    raise errors.InputError(
      'the raw examples have no words, expected texts among their features; '
      'leave bm25 out'
    ) from error
  num_documents = counts.shape[0]
  num_with = counts.getnnz(axis=0)
  rarity = np.log1p((num_documents - num_with + 0.5) / (num_with + 0.5))
  lengths = np.asarray(counts.sum(axis=1)).reshape(-1)
  relative = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * lengths / lengths.mean()
  entries = counts.tocoo()
  weights = counts.copy()
  weights.data = (
    rarity[entries.col]
    * (entries.data * (_SATURATION + 1))
    / (entries.data + _SATURATION * relative[entries.row])
  )
  found = counter.transform(queries) @ weights.T
  return found.toarray().astype(np.float32)


def text_of(raw: corpus_lib.RawExample, leave_out: Sequence[str]) -> str:
  """All texts of a raw example, in the order of its features.

  Args:
    raw: as it was read.
    leave_out: features that name the example.
  """
  return ' '.join(
    text
    for name, value in raw.items()
    if name not in leave_out
    for text in _texts(value)
  )


def _texts(value: Any) -> Iterator[str]:
  """Texts in a feature of whatever form; bytes that are no text are none."""
  match value:
    case str():
      yield value
    case bytes():
      try:
        yield value.decode()
      except UnicodeDecodeError:
        return
    case dict():
      for item in value.values():
        yield from _texts(item)
    case np.ndarray() if value.dtype.kind in 'OSU':
      yield from _texts(value.tolist())
    case list() | tuple():
      for item in value:
        yield from _texts(item)

"""Sentence pairs made wrong on purpose, as they are wrong in crawled corpora.

The kinds are those that Khayrallah and Koehn, "On the Impact of Various Types
of Noise on Neural Machine Translation", 2018, found in such a corpus.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Kind = Literal['wrong_pair', 'wrong_language', 'copy', 'truncated']


class Pair(NamedTuple):
  """A sentence and its translation."""

  source: str
  target: str


class CorruptedPair(NamedTuple):
  """What a pair was replaced by."""

  kind: str
  source: str
  target: str


def corrupt(
  ids: Sequence[str], pairs: Sequence[Pair], *, fraction: float, seed: int
) -> dict[str, CorruptedPair]:
  """Corrupts a random fraction of a corpus, all kinds as often.

  Args:
    ids: of all pairs.
    pairs: all of them, at least two.
    fraction: how many to corrupt.
    seed: of the choice.

  Returns:
    What stands in the place of round(fraction * num_pairs) of them, by id.
  """
  generator = np.random.default_rng(seed)
  count = round(fraction * len(ids))
  chosen = generator.choice(len(ids), count, replace=False)
  # Never the pair itself.
  others = (chosen + generator.integers(1, len(ids), count)) % len(ids)
  kinds = get_args(Kind)
  return {
    ids[place]: _corrupted(
      kinds[number % len(kinds)], pairs[place], pairs[other]
    )
    for number, (place, other) in enumerate(zip(chosen, others, strict=True))
  }


def _corrupted(kind: Kind, pair: Pair, other: Pair) -> CorruptedPair:
  match kind:
    case 'wrong_pair':
      return CorruptedPair(kind, pair.source, other.target)
    case 'wrong_language':
      return CorruptedPair(kind, pair.target, pair.source)
    case 'copy':
      return CorruptedPair(kind, pair.source, pair.source)
    case 'truncated':
      words = pair.target.split()
      half = ' '.join(words[: max(1, len(words) // 2)])
      return CorruptedPair(kind, pair.source, half)

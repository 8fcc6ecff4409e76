"""What a report says: data for the page, section by section."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import markupsafe
import pyarrow as pa

from launch.pages.cards import Card
from pipeline.search.corpus_summary import ClassInfluence


class Source(NamedTuple):
  """An index of those that the report is about.

  Attributes:
    path: of the index.
    facts: what it is and was made from, by name.
    basis: what its basis is, in words.
    objections: to that basis; empty for a good one.
    fingerprints: by name.
  """

  path: str
  facts: Mapping[str, str]
  basis: str
  objections: Sequence[str]
  fingerprints: Mapping[str, str]


class Gallery(NamedTuple):
  """Training examples of the highest self-influence.

  Attributes:
    cards: of them, the highest first.
    orders: names of values that they can be ordered by.
    marks_bad: whether bad ones are known.
  """

  cards: Sequence[Card]
  orders: Sequence[str]
  marks_bad: bool


class Detection(NamedTuple):
  """How well scores find the examples that are known to be bad.

  Attributes:
    condition: that they meet.
    num_bad: of them.
    num_examples: among which they are.
    num_first: examples that the precision is of.
    scores: a row of figures for each.
    curve: precision over recall.
  """

  condition: str
  num_bad: int
  num_examples: int
  num_first: int
  scores: Sequence[Mapping[str, Any]]
  curve: markupsafe.Markup


class Query(NamedTuple):
  """A query with what was found for it.

  Attributes:
    card: the query.
    words: what the scores say.
    proponents: strongest first.
    opponents: strongest first.
  """

  card: Card
  words: Sequence[str]
  proponents: Sequence[Card]
  opponents: Sequence[Card]


class Layer(NamedTuple):
  """What a layer has of the basis, and of influence.

  Attributes:
    name: of it.
    num_columns: that it has.
    mean_curvature: of all its directions.
    captured: share of its curvature that the columns hold.
    share: of self-influence.
  """

  name: str
  num_columns: int
  mean_curvature: float
  captured: float
  share: float


class Pair(NamedTuple):
  """Two examples whose gradients point the same way.

  Attributes:
    cosine: of the two.
    cards: of the two.
  """

  cosine: float
  cards: tuple[Card, Card]


class Drift(NamedTuple):
  """What changed since the generation before.

  Attributes:
    old: its number.
    counts: of examples, by what became of them.
    changed: names of fingerprints.
    moves: id, self-influence before and after of those that moved most.
  """

  old: int
  counts: Mapping[str, int]
  changed: Sequence[str]
  moves: Sequence[tuple[str, float, float]]


@dataclasses.dataclass(frozen=True)
class Report:
  """A report; sections that are None, or empty, are not shown.

  Attributes:
    title: heading.
    sources: the indexes.
    num_examples: that can be found.
    made: when, as text.
    gallery: of training examples.
    detection: of bad ones.
    queries: with what was found for them.
    classes: influence between classes.
    layers: of the basis.
    spectrum: of the basis.
    pairs: near-duplicates among the examples that are shown.
    num_compared: examples of the gallery that such were looked for.
    rejected: `id` and `reason` of examples that were left out.
    drift: since the generation before.
  """

  title: str
  sources: Sequence[Source]
  num_examples: int
  made: str
  gallery: Gallery | None = None
  detection: Detection | None = None
  queries: Sequence[Query] = ()
  classes: ClassInfluence | None = None
  layers: Sequence[Layer] = ()
  spectrum: markupsafe.Markup | None = None
  pairs: Sequence[Pair] = ()
  num_compared: int = 0
  rejected: pa.Table | None = None
  drift: Drift | None = None

"""Cards: an example as it stands on a page."""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import io
import math
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.search import by_token
from pipeline.search.shown_examples import Shown

# Largest side of an image on the page; smaller ones keep their pixels.
_MAX_SIDE = 224
_MIN_SHOWN_SIDE = 96
_FEW_PIXELS = 64
_MAX_NUMBERS = 12
_MAX_TEXT = 4000
_NUM_LAYERS = 4
# Of the largest share in a text, what is not worth a colour.
_FAINTEST = 0.03
# Columns that are shown in places of their own.
_APART = frozenset(
  (
    *('id', 'query_id', 'kind', 'rank', 'score', 'squared_gradient_norm'),
    *('by_layer', 'tokens', 'query_tokens', 'error_bound', 'example_id'),
  )
)


class Picture(NamedTuple):
  """An image on the page.

  Attributes:
    name: of the feature.
    uri: with its data.
    width: on the page, in pixels.
    height: the same.
    is_coarse: whether its pixels are to be seen.
  """

  name: str
  uri: str
  width: int
  height: int
  is_coarse: bool


class Token(NamedTuple):
  """A token on the page.

  Attributes:
    text: of it.
    score: its share.
    shade: from -1 to 1, relative to the largest of its text.
  """

  text: str
  score: float
  shade: float


@dataclasses.dataclass(frozen=True)
class Card:
  """An example on the page.

  Attributes:
    id: of it.
    facts: what is known of it, by name.
    score: that it is there for; None for queries.
    values: numbers that cards can be ordered by.
    is_bad: whether it is known to be bad; None where that is not known.
    pictures: images.
    texts: by name.
    numbers: by name, as text.
    tokens: of its text, shaded; empty for none.
    query_tokens: those of the query, by the share in the same score.
    layers: the largest shares of layers in the score.
  """

  id: str
  facts: Mapping[str, str]
  score: float | None = None
  values: Mapping[str, float] = dataclasses.field(default_factory=dict)
  is_bad: bool | None = None
  pictures: Sequence[Picture] = ()
  texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  numbers: Mapping[str, str] = dataclasses.field(default_factory=dict)
  tokens: Sequence[Token] = ()
  query_tokens: Sequence[Token] = ()
  layers: Sequence[tuple[str, float]] = ()

  @property
  def words(self) -> str:
    """What a search looks through."""
    tokens = ''.join(token.text for token in self.tokens)
    facts = (f'{name} {value}' for name, value in self.facts.items())
    return ' '.join([self.id, *facts, *self.texts.values(), tokens]).lower()


def make(
  row: Mapping[str, Any],
  shown: Shown | None,
  *,
  tokens: by_token.Tokens | None = None,
  is_bad: bool | None = None,
) -> Card:
  """The card of an example, or of a query.

  Args:
    row: columns of its row, and of a result if it is one.
    shown: what is seen of it; None where it was not read.
    tokens: of its text, with the share of each; None for those of the row.
    is_bad: see `Card`.
  """
  known = {name: x for name, x in row.items() if name not in _APART}
  if shown is not None:
    known |= shown.said
  pieces = shown.pieces if shown is not None else []
  shaded = _shaded(tokens.pairs() if tokens else row.get('tokens') or ())
  whole = ''.join(token.text for token in shaded)
  texts = {
    x.name: _cut(x.value)
    for x in pieces
    # Not once more what stands there as tokens.
    if isinstance(x.value, str) and not (whole and x.value.strip() in whole)
  }
  for name in list(known):
    value = known[name]
    if isinstance(value, str) and (
      value in texts.values() or _is_most_of(whole, value)
    ):
      del known[name]
  values = {name: float(x) for name, x in known.items() if _is_number(x)}
  if 'squared_gradient_norm' in row:
    values['gradient norm'] = math.sqrt(row['squared_gradient_norm'])
  layers = row.get('by_layer') or {}
  largest = sorted(layers, key=lambda name: -abs(layers[name]))[:_NUM_LAYERS]
  return Card(
    id=row['id'],
    facts={name: _format(x) for name, x in known.items()},
    score=row.get('score'),
    values=values,
    is_bad=is_bad,
    pictures=[
      _picture(x.name, x.value)
      for x in pieces
      if isinstance(x.value, PIL.Image.Image)
    ],
    texts=texts,
    numbers={
      x.name: _listed(x.value)
      for x in pieces
      if isinstance(x.value, np.ndarray)
    },
    tokens=shaded,
    query_tokens=_shaded(row.get('query_tokens') or ()),
    layers=[(name, layers[name]) for name in largest],
  )


def _is_most_of(whole: str, text: str) -> bool:
  """Whether tokens say a text, with marks of begin and end besides."""
  return text.strip() in whole and 2 * len(text) > len(whole)


def _shaded(tokens: Sequence[Mapping[str, Any]]) -> list[Token]:
  largest = max((abs(token['score']) for token in tokens), default=0) or 1
  found = []
  for token in tokens:
    shade = token['score'] / largest
    is_seen = abs(shade) >= _FAINTEST
    found.append(Token(token['text'], token['score'], shade * is_seen))
  return found


def _picture(name: str, image: PIL.Image.Image) -> Picture:
  """An image of any size as one that a card has room for."""
  largest = max(image.size)
  is_coarse = largest <= _FEW_PIXELS
  if image.mode not in ('L', 'RGB', 'RGBA'):
    image = image.convert('RGB')
  if largest > _MAX_SIDE:
    image = image.copy()
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
  scale = max(1, math.ceil(_MIN_SHOWN_SIDE / max(image.size)))
  buffer = io.BytesIO()
  kind = 'PNG' if is_coarse or image.mode == 'RGBA' else 'JPEG'
  image.save(buffer, kind, optimize=True)
  data = base64.b64encode(buffer.getvalue()).decode()
  width, height = (side * scale for side in image.size)
  uri = f'data:image/{kind.lower()};base64,{data}'
  return Picture(name, uri, width, height, is_coarse)


def _is_number(value: Any) -> bool:
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return is_number and math.isfinite(value)


def _cut(text: str) -> str:
  return text if len(text) <= _MAX_TEXT else f'{text[:_MAX_TEXT]} …'


def _listed(numbers: np.ndarray) -> str:
  """The first of some numbers."""
  listed = ', '.join(f'{x:.4g}' for x in numbers[:_MAX_NUMBERS])
  more = f', … ({len(numbers):,})' if len(numbers) > _MAX_NUMBERS else ''
  return listed + more


def _format(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)

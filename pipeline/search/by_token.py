"""What each token contributes to the scores of examples that were found.

The score of example x on query q is <v, g> in two ways: of v from the query,
along which the tokens of the example are told apart, and of v from the example,
along which those of the query are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np

from influence_core import errors, types
from influence_core.scores import influence as influence_scores
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib
from pipeline.search import (
  index_session,
  member_rows,
  retrieve,
  token_examples,
)
from pipeline.search.projected_queries import ProjectedQueries


class Tokens(NamedTuple):
  """Tokens of an example, with the share of each in a score.

  Attributes:
    texts: of the tokens.
    scores: [len(texts)] float64; they add up to the score.
  """

  texts: Sequence[str]
  scores: np.ndarray

  def pairs(self) -> list[dict[str, Any]]:
    """One of text and score for each token."""
    scores = self.scores.tolist()
    return [
      {'text': text, 'score': score}
      for text, score in zip(self.texts, scores, strict=True)
    ]


class TokenShares:
  """Shares of tokens in scores; over an ensemble they are added."""

  def __init__(
    self,
    index: members_lib.Searched,
    sessions: Sequence[index_session.IndexSession],
    options: ScoreOptions,
  ):
    """Says what was searched, and how it was scored.

    Args:
      index: that was searched.
      sessions: of its members.
      options: how scores were computed.

    Raises:
      errors.InputError: A task has no tokens, or their losses are wrong.
    """
    index.check_examples('tokens')
    for session in sessions:
      session.loaded.check_token_losses()
    self._index = index
    self._sessions = sessions
    self._options = options
    self._parts = members_lib.parts_of(index)

  def attach(
    self,
    queries: ProjectedQueries,
    found: Mapping[object, retrieve.Found],
    progress: types.ProgressCallback = types.no_progress,
  ) -> dict[object, retrieve.Found]:
    """What was found, with the tokens of examples and of queries.

    Args:
      queries: that were asked.
      found: for them.
      progress: called with the number of directions done, and of all.

    Raises:
      errors.InputError: The corpus has changed since, or an example cannot be
        used any more.
    """
    pairs = _pairs(found.values())
    if not len(pairs):
      return dict(found)
    positions = np.unique(pairs[:, 1])
    examples = token_examples.read(self._index, self._sessions, positions)
    asked = self._asked(queries)
    # Work is counted in directions: forward-mode passes hardly cost more.
    total = len(np.unique(pairs[:, 0])) + len(positions) * bool(asked)
    scales = self._scales(positions)
    state = _Progress(progress, total)
    of_examples = self._of_examples(queries, pairs, examples, scales, state)
    of_queries = (
      self._of_queries(queries, pairs, asked, scales, state) if asked else {}
    )
    return {
      value: dataclasses.replace(
        result,
        proponents=_with(result.proponents, of_examples, of_queries),
        opponents=_with(result.opponents, of_examples, of_queries),
      )
      for value, result in found.items()
    }

  def of_self_influence(
    self,
    positions: np.ndarray,
    progress: types.ProgressCallback = types.no_progress,
  ) -> dict[int, Tokens]:
    """Shares of tokens in the influence of examples on themselves.

    Args:
      positions: of the examples, each once.
      progress: called with the number of examples done, and of all.

    Raises:
      errors.InputError: See `attach`.
    """
    examples = token_examples.read(self._index, self._sessions, positions)
    rows = member_rows.MemberRows(self._index, self._options)
    own = rows.self_influences(self._index.vectors(positions))
    normalized = influence_scores.normalized_self_influence(
      own, rows.squared_norms_at(positions), self._options.normalization
    )
    tiny = np.finfo(np.float32).tiny
    scales = dict(
      zip(positions, normalized / np.maximum(own, tiny), strict=True)
    )

    def tokens(query, position, directions):
      del query
      return self._tokens(examples[position], directions, scales[position])

    found = self._by_pair(
      np.stack([positions, positions], axis=1),
      1,
      self._weighted,
      tokens,
      _Progress(progress, len(positions)),
    )
    return {position: own for (_, position), own in found.items()}

  def _weighted(self, position: int) -> np.ndarray:
    """[projection_dim] of the direction of an example."""
    [vector] = self._index.vectors([position])
    weights = self._index.column_weights(self._options)
    return (vector * weights).astype(np.float32)

  def _of_examples(self, queries, pairs, examples, scales, state):
    """Tokens of the example, by pair."""
    weighted = self._index.weight_queries(queries.projections, self._options)

    def tokens(query, position, directions):
      return self._tokens(examples[position], directions, scales[position])

    return self._by_pair(pairs, 0, weighted.__getitem__, tokens, state)

  def _of_queries(self, queries, pairs, asked, scales, state):
    """Tokens of the query, by pair."""
    own = self._query_scales(queries)

    def tokens(query, position, directions):
      scale = scales[position] * own[query]
      return self._tokens(asked[query], directions, scale)

    return self._by_pair(pairs, 1, self._weighted, tokens, state)

  def _by_pair(
    self,
    pairs: np.ndarray,
    side: Literal[0, 1],
    weights_of: Callable[[int], np.ndarray],
    tokens_of: Callable[[int, int, list[types.SelectedParameters]], Tokens],
    state: '_Progress',
  ) -> dict[tuple[int, int], Tokens]:
    """Tokens along the directions of each query, or of each example.

    Args:
      pairs: [n, 2] (query, position).
      side: 0 for directions of queries, 1 for those of examples.
      weights_of: of one of these, [projection_dim] of its direction.
      tokens_of: (query, position, directions) -> `Tokens`.
      state: of the progress.
    """
    totals: dict[tuple[int, int], Tokens] = {}
    for one in np.unique(pairs[:, side]):
      directions = self._directions(weights_of(one))
      for query, position in pairs[pairs[:, side] == one]:
        totals[query, position] = tokens_of(query, position, directions)
      state.step()
    return totals

  def _directions(self, weights: np.ndarray) -> list[types.SelectedParameters]:
    """In the parameters of each member."""
    return [
      session.direction(weights[part])
      for session, part in zip(self._sessions, self._parts, strict=True)
    ]

  def _tokens(
    self,
    example: token_examples.TokenExample,
    directions: Sequence[types.SelectedParameters],
    scales: np.ndarray,
  ) -> Tokens:
    total = np.zeros(len(example.texts))
    for session, direction, features, scale in zip(
      self._sessions, directions, example.features, scales, strict=True
    ):
      [scores] = session.token_scores(direction, features)
      if len(scores) < len(total):
        raise errors.InputError(
          f'token_texts has {len(total)} texts and token_losses {len(scores)} '
          'losses of the same example, expected one text for each loss'
        )
      total += scale * scores[: len(total)].astype(np.float64)
    return Tokens(example.texts, total)

  def _scales(self, positions: np.ndarray) -> dict[int, np.ndarray]:
    """[num_members] of each example: what normalisation multiplies by."""
    rows = member_rows.MemberRows(self._index, self._options)
    found = rows.scales(
      rows.self_influences(self._index.vectors(positions)),
      rows.squared_norms_at(positions),
    )
    if found is None:
      found = np.ones((len(positions), len(self._sessions)), np.float32)
    return dict(zip(positions, found, strict=True))

  def _query_scales(self, queries: ProjectedQueries) -> np.ndarray:
    """[num_queries, num_members]: the same of queries, where they have it."""
    weights = self._index.column_weights(self._options)
    weighted = self._index.weight_queries(queries.projections, self._options)
    lengths, plain = (
      np.stack([np.linalg.norm(x[:, part], axis=1) for part in self._parts], 1)
      for x in (weighted, queries.projections * weights)
    )
    return lengths / np.maximum(plain, np.finfo(np.float32).tiny)

  def _asked(
    self, queries: ProjectedQueries
  ) -> list[token_examples.TokenExample]:
    """The queries, if their scores are sums over their tokens."""
    is_loss = not any(
      session.loaded.task.measurement
      or session.index.manifest.provenance.query_ids
      for session in self._sessions
    )
    if not (is_loss and queries.is_single):
      return []
    return token_examples.prepare(
      self._sessions, [queries.examples] * len(self._sessions)
    )


class _Progress:
  """Steps of known number."""

  def __init__(self, progress: types.ProgressCallback, total: int):
    self._progress, self._total, self._done = progress, total, 0

  def step(self) -> None:
    self._done += 1
    self._progress(self._done, self._total)


def _pairs(found: Iterable[retrieve.Found]) -> np.ndarray:
  """[n, 2] (query, position) of all that was found, each once."""
  parts = [np.empty((0, 2), np.int64)]
  for result in found:
    for top in (result.proponents, result.opponents):
      queries, ranks = np.nonzero(top.positions != retrieve.NO_POSITION)
      parts.append(np.stack([queries, top.positions[queries, ranks]], axis=1))
  return np.unique(np.concatenate(parts), axis=0)


def _with(
  top: retrieve.TopExamples,
  of_examples: Mapping[tuple[int, int], Tokens],
  of_queries: Mapping[tuple[int, int], Tokens],
) -> retrieve.TopExamples:
  shape = top.positions.shape
  tokens, query_tokens = np.empty(shape, object), np.empty(shape, object)
  for query, rank in np.argwhere(top.positions != retrieve.NO_POSITION):
    pair = query, top.positions[query, rank]
    tokens[query, rank] = of_examples[pair]
    query_tokens[query, rank] = of_queries.get(pair)
  return dataclasses.replace(
    top, tokens=tokens, query_tokens=query_tokens if of_queries else None
  )

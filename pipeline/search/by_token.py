"""What each token contributes to the scores of examples that were found.

The score of example x on query q is <v, g> in two ways: of v from the query,
along which the tokens of the example are told apart, and of v from the example,
along which those of the query are.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from influence_core import errors, types, user_code
from influence_core.scores.options import ScoreOptions
from pipeline.corpora.corpus import RawExample
from pipeline.index import members as members_lib
from pipeline.search import (
  index_session,
  member_rows,
  reprojection,
  retrieve,
)
from pipeline.search.projected_queries import ProjectedQueries
from pipeline.tasks import example_form, loaded_task


class Tokens(NamedTuple):
  """Tokens of an example, with the share of each in a score.

  Attributes:
    texts: of the tokens.
    scores: [len(texts)] float64; they add up to the score.
  """

  texts: Sequence[str]
  scores: np.ndarray


class _Example(NamedTuple):
  """An example as each member sees it."""

  texts: Sequence[str]
  features: Sequence[types.Features]


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
    examples = dict(zip(positions, self._read(positions), strict=True))
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

  def _of_examples(self, queries, pairs, examples, scales, state):
    """Tokens of the example, by pair."""
    weighted = self._index.weight_queries(queries.projections, self._options)

    def tokens(query, position, directions):
      return self._tokens(examples[position], directions, scales[position])

    return self._by_pair(pairs, 0, weighted.__getitem__, tokens, state)

  def _of_queries(self, queries, pairs, asked, scales, state):
    """Tokens of the query, by pair."""
    own = self._query_scales(queries)
    weights = self._index.column_weights(self._options)

    def weighted(position):
      [vector] = self._index.vectors([position])
      return (vector * weights).astype(np.float32)

    def tokens(query, position, directions):
      scale = scales[position] * own[query]
      return self._tokens(asked[query], directions, scale)

    return self._by_pair(pairs, 1, weighted, tokens, state)

  def _by_pair(self, pairs, side, weights_of, tokens_of, state):
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
    example: _Example,
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

  def _asked(self, queries: ProjectedQueries) -> list[_Example]:
    """The queries, if their scores are sums over their tokens."""
    is_loss = not any(
      session.loaded.task.measurement
      or session.index.manifest.provenance.query_ids
      for session in self._sessions
    )
    if not (is_loss and queries.is_single):
      return []
    return self._prepared([queries.examples] * len(self._sessions))

  def _read(self, positions: np.ndarray) -> list[_Example]:
    """Examples by position, from the corpus of each member."""
    raw = []
    for session, member in zip(
      self._sessions, self._index.members, strict=True
    ):
      own = member.own(positions)
      reprojection.check_sources(
        session.index, session.loaded, own, 'leave --tokens out'
      )
      ids = session.index.rows(own, ['id'])['id'].to_pylist()
      read = dict(session.loaded.task.corpus.read_ids(ids))
      raw.append([(example_id, read[example_id]) for example_id in ids])
    return self._prepared(raw)

  def _prepared(
    self,
    examples: Sequence[Sequence[tuple[str, example_form.AnyExample]]],
  ) -> list[_Example]:
    """The same examples, of each member."""
    features = [
      [_features(session.loaded, *one) for one in own]
      for session, own in zip(self._sessions, examples, strict=True)
    ]
    task = self._sessions[0].loaded.task
    prepared = []
    for (example_id, raw), *own in zip(examples[0], *features, strict=True):
      texts = _texts(task.token_texts, example_id, raw)
      prepared.append(_Example(texts, own))
    return prepared


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


def _features(
  loaded: loaded_task.LoadedTask,
  example_id: str,
  raw: example_form.AnyExample,
) -> types.Features:
  """[1, ...] features of an example.

  Raises:
    errors.InputError: It cannot be used any more.
  """
  batch = loaded.preprocess_batch([(example_id, raw)])
  for reason in batch.rejected.values():
    raise errors.InputError(
      f'{example_id} cannot be read again ({reason}); correct that or leave '
      '--tokens out'
    )
  return batch.features


def _texts(function: Any, example_id: str, raw: RawExample) -> list[str]:
  with user_code.user_errors(f'token_texts of {example_id}', function):
    return [str(text) for text in function(raw)]

"""Scores that influence must beat: what costs little and knows no curvature.

    loss           of the training example, whatever the query
    gradient_norm  of the training example, whatever the query
    embedding      cosine of what the model makes of both before its last layer
    bm25           rare words that both texts share

They stand where the scores of an index do, the highest for what is most likely
to help the query.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from influence_core import errors, types
from influence_core.baselines import representation
from pipeline.corpora import corpus as corpus_lib
from pipeline.evaluation import bm25
from pipeline.evaluation.options import Baseline
from pipeline.index import members as members_lib
from pipeline.search import reprojection
from pipeline.tasks import example_form, loaded_task, queries as query_lib

_COLUMNS = {'loss': 'loss', 'gradient_norm': 'squared_gradient_norm'}
_Examples = Iterable[tuple[str, example_form.AnyExample]]


def scores(
  name: Baseline,
  index: members_lib.Searched,
  loaded: loaded_task.LoadedTask,
  query_split: str,
  *,
  progress: types.ProgressCallback = types.no_progress,
) -> tuple[np.ndarray, list[str]]:
  """What a baseline gives every example of an index for every query.

  Args:
    name: of the baseline.
    index: whose examples are scored, of the task first; they must fit memory.
    loaded: the task.
    query_split: split with the queries.
    progress: called with the number of examples scored, and of all.

  Returns:
    [num_queries, num_examples] float32, and the ids of the examples.

  Raises:
    errors.InputError: The corpus is another by now, or the task has nothing
      that the baseline is made of.
  """
  index.check_examples(f'baseline {name}')
  rows = index.rows(columns=['id', *_COLUMNS.values()])
  ids = rows['id'].to_pylist()
  if name in _COLUMNS:
    num_queries = loaded.task.corpus.with_split(query_split).num_examples
    values = rows[_COLUMNS[name]].to_numpy()
    return np.broadcast_to(values, (num_queries, len(ids))), ids
  first = index.members[0]
  places = first.own(np.arange(len(ids)))
  reprojection.check_sources(first.index, loaded, places, f'leave {name} out')
  corpus = loaded.task.corpus
  queries = list(query_lib.raw_examples(corpus, query_split))
  examples = _told(corpus.read_ids(ids), len(ids), progress)
  if name == 'bm25':
    return _bm25(loaded, queries, examples), ids
  return _cosines(loaded, queries, examples, ids), ids


def _told(
  examples: _Examples, num_examples: int, progress: types.ProgressCallback
) -> _Examples:
  """The examples, each told of as it is taken."""
  for number, example in enumerate(examples, start=1):
    yield example
    progress(number, num_examples)


def _bm25(
  loaded: loaded_task.LoadedTask, queries: _Examples, examples: _Examples
) -> np.ndarray:
  names = [corpus_lib.ID_KEY, loaded.task.example_id or '']

  def texts(some: _Examples) -> Iterable[str]:
    for example_id, raw in some:
      if isinstance(raw, corpus_lib.UndecodableExample):
        raise _unusable({example_id: raw.reason})
      yield bm25.text_of(raw, names)

  return bm25.scores(list(texts(queries)), texts(examples))


def _cosines(
  loaded: loaded_task.LoadedTask,
  queries: Sequence[tuple[str, example_form.AnyExample]],
  examples: _Examples,
  ids: Sequence[str],
) -> np.ndarray:
  task = loaded.task
  model = representation.Representation(task.per_example_loss, loaded.params)
  query_ids = [query_id for query_id, _ in queries]
  asked = _directions(model, loaded, queries, query_ids)
  return asked @ _directions(model, loaded, examples, ids).T


def _directions(
  model: representation.Representation,
  loaded: loaded_task.LoadedTask,
  examples: _Examples,
  ids: Sequence[str],
) -> np.ndarray:
  """[len(ids), width] float32 representations of length 1, or all zero."""
  places = {example_id: place for place, example_id in enumerate(ids)}
  parts, order = [], []
  for batch in loaded.preprocess_by_length(examples, representation.BATCH_SIZE):
    if batch.rejected:
      raise _unusable(batch.rejected)
    parts.append(model(batch.features))
    order += [places[example_id] for example_id in batch.ids]
  unordered = np.concatenate(parts)
  vectors = np.empty_like(unordered)
  vectors[order] = unordered
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return np.divide(
    vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0
  )


def _unusable(rejected: Mapping[str, str]) -> errors.InputError:
  example_id, reason = next(iter(rejected.items()))
  return errors.InputError(
    f'{len(rejected)} examples cannot be used, the first is {example_id} '
    f'({reason}); correct it or leave the baseline out'
  )

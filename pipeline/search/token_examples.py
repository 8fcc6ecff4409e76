"""Examples with the texts of their tokens, as each model sees them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from influence_core import errors, types, user_code
from pipeline.corpora.corpus import RawExample
from pipeline.index import members as members_lib
from pipeline.search import index_session, reprojection
from pipeline.tasks import example_form, loaded_task

Examples = Sequence[tuple[str, example_form.AnyExample]]


class TokenExample(NamedTuple):
  """An example with its tokens.

  Attributes:
    texts: of the tokens.
    features: [1, ...] of the example, for each member.
  """

  texts: Sequence[str]
  features: Sequence[types.Features]


def read(
  index: members_lib.Searched,
  sessions: Sequence[index_session.IndexSession],
  positions: np.ndarray,
) -> dict[int, TokenExample]:
  """Examples of an index by position, from the corpus of each member.

  Args:
    index: that they are of.
    sessions: of its members.
    positions: of the examples.

  Raises:
    errors.InputError: The corpus has changed since, or an example cannot be
      used any more.
  """
  raw = []
  for session, member in zip(sessions, index.members, strict=True):
    own = member.own(positions)
    reprojection.check_sources(
      session.index, session.loaded, own, 'leave --tokens out'
    )
    ids = session.index.rows(own, ['id'])['id'].to_pylist()
    examples = dict(session.loaded.task.corpus.read_ids(ids))
    raw.append([(example_id, examples[example_id]) for example_id in ids])
  return dict(zip(positions.tolist(), prepare(sessions, raw), strict=True))


def prepare(
  sessions: Sequence[index_session.IndexSession],
  examples: Sequence[Examples],
) -> list[TokenExample]:
  """The same examples as each member sees them.

  Args:
    sessions: of the members.
    examples: raw, of each member.
  """
  features = [
    [_features(session.loaded, *one) for one in own]
    for session, own in zip(sessions, examples, strict=True)
  ]
  function = sessions[0].loaded.task.token_texts
  prepared = []
  for (example_id, raw), *own in zip(examples[0], *features, strict=True):
    prepared.append(TokenExample(_texts(function, example_id, raw), own))
  return prepared


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

"""Questions as the page asks them: JSON, checked value by value."""

import base64
import binascii
from collections.abc import Iterator, Mapping
import contextlib
import pathlib
import tempfile
from typing import Any, NamedTuple

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.explorer import raw_form
from launch.pages.report_request import ReportRequest
from pipeline.corpora import row_readers
from pipeline.corpora.corpus import RawExample
from pipeline.tasks import queries as query_lib
from pipeline.tasks.query_choice import QueryChoice

_MAX_K = 100


class Question(NamedTuple):
  """What is asked.

  Attributes:
    content: as the page sent it.
    request: how to answer.
  """

  content: Mapping[str, Any]
  request: ReportRequest

  @contextlib.contextmanager
  def queries(self, raw: RawExample) -> Iterator[query_lib.Queries]:
    """The queries, as long as an uploaded file is there.

    Args:
      raw: an example of the corpus, for those that are typed.

    Raises:
      errors.InputError: They are given in no known way.
    """
    source = _text(self.content, 'source')
    if source == 'ids':
      yield QueryChoice(query_ids=tuple(_text(self.content, 'ids').split()))
    elif source == 'split':
      yield QueryChoice(query_split=_text(self.content, 'split').strip())
    elif source == 'fields':
      given = _value(self.content, 'fields', dict)
      yield [raw_form.example_of(raw, given)]
    elif source == 'file':
      with tempfile.TemporaryDirectory(prefix='influence_') as directory:
        yield QueryChoice(queries=self._save(directory))
    else:
      raise errors.InputError(
        f'source is {source!r}, expected ids, split, fields or file'
      )

  def _save(self, directory: str) -> str:
    """Writes an uploaded file, under a name of ours."""
    given = _value(self.content, 'file', dict)
    kind = row_readers.kind_of(pathlib.PurePath(_text(given, 'name')).name)
    if kind is None:
      raise errors.InputError(
        f'the file is {given["name"]!r}, expected one of '
        f'{", ".join(row_readers.READERS)}'
      )
    try:
      data = base64.b64decode(_text(given, 'data'), validate=True)
    except (ValueError, binascii.Error) as error:
      raise errors.InputError(
        'the file did not arrive as it was sent; upload it again'
      ) from error
    path = pathlib.Path(directory) / f'uploaded{kind}'
    path.write_bytes(data)
    return str(path)


def parse(content: Any) -> Question:
  """A question from JSON.

  Raises:
    errors.InputError: A value is missing, of another type or out of range.
  """
  if not isinstance(content, dict):
    raise errors.InputError(
      f'the question is {type(content).__name__}, expected a JSON object'
    )
  k = _value(content, 'k', int)
  if not 1 <= k <= _MAX_K:
    raise errors.InputError(f'k is {k}, expected 1 to {_MAX_K}')
  options = ScoreOptions(
    damping=_damping(_text(content, 'damping')),
    layers=_text(content, 'layers') or None,
    normalization=_text(content, 'normalization'),  # type: ignore[arg-type]
  )
  return Question(
    content,
    ReportRequest(
      k=k,
      options=options,
      where=_text(content, 'where') or None,
      tokens=_value(content, 'tokens', bool),
      exclude_self=True,
    ),
  )


def _damping(text: str) -> float | str | None:
  try:
    return float(text) if text and not text.endswith('x') else text or None
  except ValueError as error:
    raise errors.InputError(
      f'damping is {text!r}, expected a number such as 0.01, or 0.1x'
    ) from error


def _text(content: Mapping[str, Any], name: str) -> str:
  return _value(content, name, str)


def _value(content: Mapping[str, Any], name: str, kind: type) -> Any:
  value = content.get(name)
  if type(value) is not kind:
    raise errors.InputError(
      f'{name} is {type(value).__name__}, expected {kind.__name__}'
    )
  return value

"""A task whose examples are projected token by token, a row for each."""

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core import errors, types
from pipeline.corpora import corpus as corpus_lib
from pipeline.index import shard_files
from pipeline.tasks import task as task_lib

# Columns of a row: which token of the example it is, and its text.
POSITION, TEXT = shard_files.TOKEN_COLUMNS
NO_TOKEN = 'no token of it has a gradient'


def by_token(task: task_lib.Task) -> task_lib.Task:
  """The task with all token texts of an example in a column, see `rows_of`.

  Raises:
    errors.InputError: It has columns of these names itself.
  """
  token_texts = task.token_texts
  assert token_texts is not None  # Checked with the losses.

  def row_columns(raw: corpus_lib.RawExample) -> Mapping[str, Any]:
    own = task.row_columns(raw) if task.row_columns else {}
    if taken := {POSITION, TEXT} & own.keys():
      raise errors.InputError(
        f'row_columns gives a column {min(taken)!r}, which --per_token has '
        'itself; give it another name'
      )
    texts = json.dumps([str(text) for text in token_texts(raw)])
    return {**own, POSITION: 0, TEXT: texts}

  return dataclasses.replace(task, row_columns=row_columns)


def rows_of(
  rows: pa.Table, projected: types.ProjectedExamples
) -> tuple[pa.Table, np.ndarray]:
  """The tokens of examples that have a gradient.

  Padding, and what does not count in the loss, has none.

  Args:
    rows: of the examples, with the columns of `by_token`.
    projected: [examples, tokens, ...] of them.

  Returns:
    Rows of the tokens, and [rows, projection_dim] projections.
  """
  norms = np.asarray(projected.squared_gradient_norms)
  examples, positions = np.nonzero(norms)
  texts = [json.loads(text) for text in rows[TEXT].to_pylist()]
  found = rows.take(pa.array(examples))
  columns = {
    'loss': np.asarray(projected.losses)[examples, positions],
    'squared_gradient_norm': norms[examples, positions],
    POSITION: positions,
    TEXT: [
      texts[example][position] if position < len(texts[example]) else ''
      for example, position in zip(examples, positions, strict=True)
    ],
  }
  for name, values in columns.items():
    number = found.schema.get_field_index(name)
    field = found.schema.field(number)
    found = found.set_column(number, field, pa.array(values, field.type))
  vectors = np.asarray(projected.projections)[examples, positions]
  return found, vectors

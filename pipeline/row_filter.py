"""Conditions on the rows of an index, in SQL: `label = 3 and length < 40`.

DuckDB parses and evaluates them, without access to files or the network.
"""

import duckdb
import numpy as np
import pyarrow as pa

from influence_core import errors


class RowFilter:
  """Tells which rows meet a condition."""

  def __init__(self, condition: str, schema: pa.Schema):
    """Checks the condition against the columns that there are.

    Args:
      condition: an SQL expression that is true or false for each row.
      schema: of the rows.

    Raises:
      errors.InputError: It is no such expression.
    """
    self._condition = condition
    self._connection = duckdb.connect(
      config={'enable_external_access': False, 'threads': 1}
    )
    try:
      if len(self.matches(schema.empty_table())):
        raise duckdb.Error('it is one value for all rows')
    except duckdb.Error as error:
      reason = str(error).strip().splitlines()[0]
      raise errors.InputError(
        f'--where {condition!r} cannot be used ({reason}); the columns are '
        f'{", ".join(f"{field.name} {field.type}" for field in schema)}'
      ) from error

  def matches(self, rows: pa.Table) -> np.ndarray:
    """[num_rows] bool; false where the condition is unknown (null)."""
    found = self._connection.from_arrow(rows).project(
      f'coalesce(cast(({self._condition}) as boolean), false) as found'
    )
    return found.fetchnumpy()['found'].astype(bool)

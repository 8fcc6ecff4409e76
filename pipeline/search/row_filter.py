"""Conditions on the rows of an index, in SQL: `label = 3 and length < 40`.

DuckDB parses and evaluates them, without access to files or the network.
"""

import duckdb
import numpy as np
import pyarrow as pa

from influence_core import errors


class RowFilter:
  """Tells which rows meet a condition."""

  def __init__(
    self, condition: str, schema: pa.Schema, *, flag: str = '--where'
  ):
    """Checks the condition against the columns that there are.

    Args:
      condition: an SQL expression that is true or false for each row.
      schema: of the rows.
      flag: what the condition was given by, for errors.

    Raises:
      errors.InputError: It is no such expression.
    """
    self._condition = condition
    self._schema = schema
    self._flag = flag
    self._connection = duckdb.connect(
      config={'enable_external_access': False, 'threads': 1}
    )
    self.matches(schema.empty_table())
    # Some mistakes show only where there is a row: 'x' compared with a number.
    nothing = [pa.nulls(1, field.type) for field in schema]
    self.matches(pa.Table.from_arrays(nothing, schema=schema))

  def matches(self, rows: pa.Table) -> np.ndarray:
    """[num_rows] bool; false where the condition is unknown (null).

    Raises:
      errors.InputError: The condition has no value for a row.
    """
    try:
      found = self._connection.from_arrow(rows).project(
        f'coalesce(cast(({self._condition}) as boolean), false) as found'
      )
      matches = found.fetchnumpy()['found'].astype(bool)
    except duckdb.Error as error:
      raise self._unusable(errors.first_line(error)) from error
    if len(matches) != rows.num_rows:  # Such as of unnest or an aggregate.
      raise self._unusable('it is not one value for each row')
    return matches

  def _unusable(self, reason: str) -> errors.InputError:
    columns = ', '.join(f'{field.name} {field.type}' for field in self._schema)
    return errors.InputError(
      f'{self._flag} {self._condition!r} cannot be used ({reason}); the '
      f'columns are {columns}'
    )

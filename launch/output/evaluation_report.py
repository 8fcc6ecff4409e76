"""What an evaluation found: printed, and stored to look at and compute with."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, get_args

import pyarrow as pa

from influence_core.scores import evaluation
from launch.output import (
  console as console_lib,
  json_text,
  plots,
  result_tables,
)
from pipeline.evaluation.options import Baseline
from pipeline.storage import files as storage


@dataclasses.dataclass(frozen=True)
class Report:
  """Findings of an evaluation.

  Attributes:
    name: of its JSON file, without '.json'.
    title: of the table that is printed.
    table: that is printed.
    result: all that is found, for JSON.
    tables: for Parquet, by name, without '.parquet'.
    plots: functions that draw an SVG, by name, without '.svg'.
  """

  name: str
  title: str
  table: pa.Table
  result: dict[str, Any]
  tables: Mapping[str, pa.Table]
  plots: Mapping[str, Callable[[], bytes]]

  def show(
    self, console: console_lib.Console, out: str | None
  ) -> dict[str, Any]:
    """Prints the table and writes the files; returns the result.

    Args:
      console: to print to.
      out: directory; None for no files.
    """
    result_tables.print_rows(console, self.title, self.table)
    if out is not None:
      console.print(f'wrote {", ".join(self._write(out))} to {out}')
    return self.result

  def _write(self, out: str) -> list[str]:
    """Writes files, pictures last; returns their names.

    What took hours is not lost for a picture: one that cannot be drawn is told
    and left out.
    """
    own = f'{self.name}.json'
    with storage.open_for_writing(storage.join(out, own)) as file:
      file.write(json_text.encode(self.result, indent=2).encode())
    for name, table in self.tables.items():
      result_tables.write_table(storage.join(out, f'{name}.parquet'), table)
    written = [own, *(f'{name}.parquet' for name in self.tables)]
    for name, draw in self.plots.items():
      try:
        picture = draw()
      except Exception as error:
        console_lib.logger.warning(
          '%s.svg cannot be drawn (%s: %s); the results are in %s',
          *(name, type(error).__name__, error, storage.join(out, own)),
        )
        continue
      with storage.open_for_writing(storage.join(out, f'{name}.svg')) as file:
        file.write(picture)
      written.append(f'{name}.svg')
    return written


def interval_columns(
  name: str, interval: evaluation.MeanInterval
) -> dict[str, float]:
  """A figure and the ends of its interval, as columns NAME, NAME_low, ..."""
  return {
    name: interval.mean,
    f'{name}_low': interval.low,
    f'{name}_high': interval.high,
  }


def short_names(methods: Sequence[str]) -> list[str]:
  """Labels of methods: of indexes what their paths differ by, of baselines all.

  Args:
    methods: paths of indexes, and names of baselines.
  """
  paths = [x for x in methods if x not in get_args(Baseline)]
  labels = dict(zip(paths, plots.short_names(paths), strict=True))
  return [labels.get(x, x) for x in methods]

"""`influence export`: an index as one file that other tools read."""

import pathlib
from typing import Any, cast, get_args

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.output import console as console_lib
from pipeline.index import (
  choices as index_choices,
  export,
  reader as index_reader,
)
from pipeline.storage import output_places


def run(
  console: console_lib.Console,
  *,
  index: str,
  out: str,
  file_format: index_choices.ExportFormat | None,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Writes the newest generation as one file."""
  file_format = file_format or _format_of(out)
  opened = index_reader.Index(index)
  output_places.check(out, 'results')
  with console.stage('export') as progress:
    export.export(opened, out, file_format, options=options, progress=progress)
  console.print(
    f'{out}: {opened.num_examples:,} examples of generation '
    f'{opened.generation} as {file_format}'
  )
  return {
    'index': opened.path,
    'generation': opened.generation,
    'out': out,
    'num_examples': opened.num_examples,
  }


def _format_of(out: str) -> index_choices.ExportFormat:
  """What the name of a file says."""
  suffix = pathlib.PurePath(out).suffix.removeprefix('.')
  formats = get_args(index_choices.ExportFormat)
  if suffix not in formats:
    raise errors.InputError(
      f'out is {out}, expected a name that ends in .{", .".join(formats)}; or '
      'give --format'
    )
  return cast(index_choices.ExportFormat, suffix)

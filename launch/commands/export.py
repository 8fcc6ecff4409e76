"""`influence export`: an index as one file that other tools read."""

from typing import Any

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
  file_format: index_choices.ExportFormat,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Writes the newest generation as one file."""
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

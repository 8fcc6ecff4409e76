"""`influence export`: an index as one file that other tools read."""

from typing import Any

from influence_core.scores import influence as influence_scores
from launch.output import console as console_lib
from pipeline.index import export
from pipeline.index import reader as index_reader
from pipeline.storage import output_places


def run(
  console: console_lib.Console,
  *,
  index: str,
  out: str,
  file_format: export.Format,
  options: influence_scores.ScoreOptions,
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

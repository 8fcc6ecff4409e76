"""A projection on a Beam runner, with progress and an eye on its workers."""

from collections.abc import Sequence
import contextlib
import io
import tempfile

from apache_beam.options import pipeline_options

from influence_core import errors
from launch.output import console as console_lib, error_lines
from launch.running import watchdog
from pipeline.beam import project_corpus, runner_options
from pipeline.index import format as index_format
from pipeline.projection import (
  job as projection_job,
  journal as work_journal,
  plan as plan_lib,
  publishing,
  tally,
)
from pipeline.storage import files as storage

_MAX_ATTEMPTS = 3


def run(
  console: console_lib.Console,
  job: projection_job.ProjectionJob,
  *,
  stall_seconds: float,
  options: pipeline_options.PipelineOptions,
) -> int:
  """Projects what is missing and publishes the plan.

  Args:
    console: for the progress.
    job: what to do.
    stall_seconds: longest that a worker on this machine may take for a batch.
    options: of Beam.

  Returns:
    How many examples were missing.

  Raises:
    watchdog.StalledError: A worker on this machine is gone, or stuck.
    errors.InputError: See `projection.publishing`.
  """
  index, ranges = job.index, job.changes.wanted
  plan_path = job.save_plan()
  total = sum(item.num_examples for item in ranges)
  num_present = num_committed(index, ranges)
  if num_present:
    console.print(f'{num_present} of {total} examples are there already')
  with (
    tempfile.TemporaryDirectory() as journal,
    console.stage('project') as progress,
  ):

    def show_progress() -> None:
      facts = tally.read(journal).facts()
      progress(num_committed(index, ranges), total, **facts)

    with (
      watchdog.watch(
        show_progress,
        lambda: work_journal.find_stuck(journal, stall_seconds),
      ),
      # Beam's workers print the traceback of an error that is raised here too.
      contextlib.redirect_stderr(io.StringIO()),
    ):
      if runner_options.is_local(options):
        job = job.with_journal(journal)
      _run(console, job, plan_path, options)
    show_progress()
  return total - num_present


def _run(
  console: console_lib.Console,
  job: projection_job.ProjectionJob,
  plan_path: str,
  options: pipeline_options.PipelineOptions,
) -> None:
  if job.changes.wanted:
    _run_pipeline(console, job, plan_path, options)
  else:
    publishing.publish_plan(
      job.index, plan_lib.load(plan_path), (), job.max_rejected_fraction
    )


def _run_pipeline(
  console: console_lib.Console,
  job: projection_job.ProjectionJob,
  plan_path: str,
  options: pipeline_options.PipelineOptions,
) -> None:
  """Runs the pipeline, again when the engine lost its workers.

  Some engines try lost work again themselves, others fail then. What is
  committed is kept either way.
  """
  for attempt in range(1, _MAX_ATTEMPTS + 1):
    try:
      with error_lines.server_errors():
        project_corpus.run_pipeline(job, plan_path, options)
      return
    except RuntimeError as error:
      if error_lines.expected_error(error):
        raise
      line = error_lines.last_line(error)
      if attempt == _MAX_ATTEMPTS:
        raise errors.InputError(
          f'the engine failed {attempt} times, the last time with: {line}; run '
          'the same command again, what is done is kept'
        ) from error
      console.warn(f'the engine failed ({line}); what is missing begins again')


def num_committed(
  index: str, ranges: Sequence[index_format.ExampleRange]
) -> int:
  """Examples of ranges whose shard is committed, from one listing.

  For progress alone: it works the same on every Beam runner, near or far. The
  listing grows with the index; `watchdog` asks for it the more rarely.
  """
  committed = {
    index_format.stem_of(name)
    for name in storage.list_names(index_format.shards_directory(index))
    if name.startswith('rows-') and name.endswith('.parquet')
  }
  return sum(x.num_examples for x in ranges if x.stem in committed)

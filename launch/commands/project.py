"""`influence project`: the projected gradients of a corpus, as an index."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import io
import threading
from typing import Any

from apache_beam.options import pipeline_options

from influence_core import errors, gradient_projection
from launch import console as console_lib
from pipeline import (
  index_format,
  index_reader,
  loaded_task,
  project_corpus,
  projection_worker,
  runner_options,
  storage,
  stored_basis,
  vector_codec,
)
from pipeline import plan as plan_lib
from pipeline import task as task_lib

_POLL_SECONDS = 1.0


def run(
  console: console_lib.Console,
  *,
  task: task_lib.TaskReference,
  basis: str,
  index: str,
  num_workers: int,
  projection_options: gradient_projection.ProjectionOptions,
  vector_dtype: vector_codec.VectorDtype,
  range_size: int,
  max_rejected_fraction: float,
  beam_arguments: Sequence[str],
) -> dict[str, Any]:
  """Projects what is missing and publishes, or says that nothing is to do."""
  if not 0 <= max_rejected_fraction <= 1:
    raise errors.InputError(
      f'max_rejected_fraction is {max_rejected_fraction}, expected 0 to 1'
    )
  if projection_options.batch_size is not None:
    gradient_projection.check_batch_size(projection_options.batch_size)
  options = runner_options.make_options(beam_arguments, num_workers)
  record = stored_basis.load_record(basis)
  index = storage.absolute(index)
  task = task.selecting(record.config['parameter_paths'])
  loaded = loaded_task.LoadedTask.load(
    task, probe=stored_basis.load_probe(record)
  )
  stored_basis.check_belongs(record, loaded.fingerprints)
  plan = plan_lib.make_plan(
    loaded.task.corpus,
    task=task.to_json(),
    basis=record.path,
    eigenvalues=record.eigenvalues,
    task_fingerprints=loaded.fingerprints,
    basis_fingerprint=record.fingerprint,
    basis_dtype=projection_options.basis_dtype,
    vector_dtype=vector_dtype,
    range_size=range_size,
  )
  changes = plan_lib.changes(index, plan)
  if changes.is_empty:
    console.print(
      f'nothing to do: {index} holds all {plan.num_examples} examples'
    )
    return _result(index, changes, num_projected=0)
  storage.check_writable(index)
  _tell_changes(console, changes)
  plan = dataclasses.replace(plan, adopted_generation=changes.generation)
  plan_path = plan_lib.save(index, plan)
  num_projected = _project(
    console,
    changes.wanted,
    plan_path=plan_path,
    settings=projection_worker.ProjectionSettings(
      task=task,
      basis=record.path,
      index=index,
      options=projection_options,
      vector_dtype=vector_dtype,
      range_size=max(item.num_examples for item in plan.ranges),
      task_fingerprints=loaded.fingerprints,
      basis_fingerprint=record.fingerprint,
    ),
    max_rejected_fraction=max_rejected_fraction,
    options=options,
  )
  result = _result(index, changes, num_projected=num_projected)
  rate = num_projected / console.seconds['project']
  console.print(
    f'published generation {result["generation"]} of {index}: '
    f'{result["num_examples"]} examples in {result["num_shards"]} shards, '
    f'{result["num_rejected"]} rejected, {rate:.1f} examples/s'
  )
  return {**result, 'examples_per_second': rate}


def _tell_changes(
  console: console_lib.Console, changes: plan_lib.Changes
) -> None:
  if changes.generation is None:
    return
  if changes.all_new_because:
    console.print(f'all is projected anew: {changes.all_new_because}')
  console.print(
    f'generation {changes.generation}: {len(changes.reused):,} ranges reused, '
    f'{len(changes.wanted):,} recomputed, {changes.num_dropped:,} dropped'
  )
  if changes.num_damaged:
    console.warn(
      f'files of {changes.num_damaged:,} ranges of generation '
      f'{changes.generation} are gone or cut short'
    )


def _project(
  console: console_lib.Console,
  ranges: Sequence[index_format.ExampleRange],
  *,
  plan_path: str,
  settings: projection_worker.ProjectionSettings,
  max_rejected_fraction: float,
  options: pipeline_options.PipelineOptions,
) -> int:
  """Projects ranges and publishes the plan; how many examples were missing."""
  index = settings.index
  total = sum(item.num_examples for item in ranges)
  num_present = _num_committed(index, ranges)
  if num_present:
    console.print(f'{num_present} of {total} examples are there already')
  with (
    console.stage('project') as progress,
    _poll(lambda: progress(_num_committed(index, ranges), total)),
    # Beam's workers print the traceback of an error that is raised here too.
    contextlib.redirect_stderr(io.StringIO()),
  ):
    if ranges:
      project_corpus.run_pipeline(
        ranges,
        plan_path=plan_path,
        settings=settings,
        max_rejected_fraction=max_rejected_fraction,
        options=options,
      )
    else:
      project_corpus.publish_plan(
        index, plan_lib.load(plan_path), (), max_rejected_fraction
      )
  return total - num_present


def _result(
  index: str, changes: plan_lib.Changes, *, num_projected: int
) -> dict[str, Any]:
  manifest = index_reader.Index(index).manifest
  return {
    'index': index,
    'generation': manifest.generation,
    'num_examples': manifest.num_examples,
    'num_projected': num_projected,
    'num_ranges_reused': len(changes.reused),
    'num_ranges_recomputed': len(changes.wanted),
    'num_ranges_dropped': changes.num_dropped,
    'num_rejected': manifest.num_rejected,
    'num_shards': len(manifest.shards),
  }


def _num_committed(
  index: str, ranges: Sequence[index_format.ExampleRange]
) -> int:
  """Examples of ranges whose shard is committed, from one listing.

  For progress alone: it works the same on every Beam runner, near or far.
  """
  committed = {
    index_format.stem_of(name)
    for name in storage.list_names(index_format.shards_directory(index))
    if name.startswith('rows-') and name.endswith('.parquet')
  }
  return sum(x.num_examples for x in ranges if x.stem in committed)


@contextlib.contextmanager
def _poll(function: Callable[[], None]):
  """Calls `function` every second from a thread of its own."""
  stop = threading.Event()

  def loop():
    while not stop.wait(_POLL_SECONDS):
      function()

  thread = threading.Thread(target=loop, daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()

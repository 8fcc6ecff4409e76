"""`influence project`: the projected gradients of a corpus, as an index."""

from collections.abc import Callable, Sequence
import contextlib
import io
import threading
from typing import Any

from influence_core import errors, gradient_projection
from launch import console as console_lib
from pipeline import (
  index_format,
  loaded_task,
  project_corpus,
  projection_worker,
  retrieve,
  runner_options,
  storage,
  stored_basis,
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
  loaded = loaded_task.LoadedTask.load(task)
  stored_basis.check_belongs(record, loaded.fingerprints)
  plan = plan_lib.make_plan(
    loaded.task.corpus,
    task=task.to_json(),
    basis=record.path,
    eigenvalues=record.eigenvalues,
    task_fingerprints=loaded.fingerprints,
    basis_fingerprint=record.fingerprint,
    basis_dtype=projection_options.basis_dtype,
    range_size=range_size,
  )
  if plan_lib.is_published(index, plan):
    console.print(
      f'nothing to do: {index} holds all {plan.num_examples} examples'
    )
    return _result(index, num_projected=0)
  storage.check_writable(index)
  num_present = _num_committed(index, plan)
  if num_present:
    console.print(
      f'{num_present} of {plan.num_examples} examples are there already'
    )
  settings = projection_worker.ProjectionSettings(
    task=task,
    basis=record.path,
    index=index,
    options=projection_options,
    range_size=max(item.num_examples for item in plan.ranges),
    task_fingerprints=loaded.fingerprints,
    basis_fingerprint=record.fingerprint,
  )
  plan_path = plan_lib.save(index, plan)
  with (
    console.stage('project') as progress,
    _poll(lambda: progress(_num_committed(index, plan), plan.num_examples)),
    # Beam's workers print the traceback of an error that is raised here too.
    contextlib.redirect_stderr(io.StringIO()),
  ):
    project_corpus.run_pipeline(
      plan,
      plan_path=plan_path,
      settings=settings,
      max_rejected_fraction=max_rejected_fraction,
      options=options,
    )
  result = _result(index, num_projected=plan.num_examples - num_present)
  rate = result['num_projected'] / console.seconds['project']
  console.print(
    f'published generation {result["generation"]} of {index}: '
    f'{result["num_examples"]} examples in {result["num_shards"]} shards, '
    f'{result["num_rejected"]} rejected, {rate:.1f} examples/s'
  )
  return {**result, 'examples_per_second': rate}


def _result(index: str, *, num_projected: int) -> dict[str, Any]:
  manifest = retrieve.Index(index).manifest
  return {
    'index': index,
    'generation': manifest.generation,
    'num_examples': manifest.num_examples,
    'num_projected': num_projected,
    'num_rejected': manifest.num_rejected,
    'num_shards': len(manifest.shards),
  }


def _num_committed(index: str, plan: plan_lib.Plan) -> int:
  """Examples of the plan whose shard is committed, from one listing.

  For progress alone: it works the same on every Beam runner, near or far.
  """
  names = storage.list_names(index_format.shards_directory(index))
  committed = {
    name.removeprefix('rows-').rsplit('-', 1)[0]
    for name in names
    if name.startswith('rows-') and name.endswith('.parquet')
  }
  return sum(x.num_examples for x in plan.ranges if x.stem in committed)


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

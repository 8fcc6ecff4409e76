"""Projects a corpus and says what changed: for `project` and `reindex`."""

import shlex
from typing import Any

import jax

from influence_core import errors
from launch.output import basis_notes, console as console_lib
from launch.running import hosts_projection, processes, watched_projection
from pipeline.bases import stored_basis
from pipeline.beam import runner_options
from pipeline.beam.engines import EngineChoice
from pipeline.index import reader as index_reader
from pipeline.projection import job as projection_job, plan as plan_lib
from pipeline.projection.request import ProjectionRequest
from pipeline.upkeep import run_records


def project_and_tell(
  console: console_lib.Console,
  *,
  request: ProjectionRequest,
  engine: EngineChoice,
  stall_minutes: float,
  multi_process: bool,
) -> dict[str, Any]:
  """Projects what is missing and publishes, or says that nothing is to do."""
  if not stall_minutes > 0:
    raise errors.InputError(
      f'stall_minutes is {stall_minutes}, expected a positive number'
    )
  if multi_process:
    if engine.beam_arguments or engine.engine != 'local':
      raise errors.InputError(
        'multi_process does without Beam; leave out --engine and what follows '
        '--, or --multi_process'
      )
    processes.join()
    if jax.process_index() > 0:
      console = console.quiet()  # The first one tells what all have done.
  else:
    beam_options = runner_options.make_options(engine, tell=console.tell)
  started = run_records.now()
  job = projection_job.prepare(request)
  if jax.process_index() == 0:
    basis_notes.tell(console, stored_basis.load_record(request.basis))
  if job.changes.is_empty:
    suggest_queries(console, job.index)
    console.print(
      f'nothing to do: {job.index} holds all {job.plan.num_examples} examples'
    )
    return _result(job, num_projected=0)
  tell_changes(console, job.changes)
  if job.padding:
    console.tell(job.padding)
  if multi_process:
    num_projected = hosts_projection.run(
      console, job, num_threads=engine.num_workers
    )
  else:
    num_projected = watched_projection.run(
      console,
      job,
      stall_seconds=60 * stall_minutes,
      options=beam_options,
    )
  result = _result(job, num_projected=num_projected)
  rate = num_projected / console.seconds['project']
  if jax.process_index() == 0:
    run_records.save(
      job.index,
      run_records.RunRecord(
        'project',
        started,
        num_projected,
        engine.num_workers * jax.process_count(),
        console.seconds['project'],
        {'engine': engine.engine, 'generation': result['generation']},
      ),
    )
  suggest_queries(console, job.index)
  console.print(
    f'published generation {result["generation"]} of {job.index}: '
    f'{result["num_examples"]} {"tokens" if request.per_token else "examples"}'
    f' in {result["num_shards"]} shards, '
    f'{result["num_rejected"]} rejected, {rate:.1f} examples/s'
  )
  share = console.facts['project'].get('device_share')
  return {**result, 'examples_per_second': rate, 'device_share': share}


def suggest_queries(console: console_lib.Console, index: str) -> None:
  """Says what an index is for."""
  index = shlex.quote(index)
  console.suggest(
    f"influence topk --index {index} --query_split 'test[:10]'",
    f'influence report --index {index} --out report.html',
    f'influence explore --index {index}',
  )


def tell_changes(
  console: console_lib.Console, changes: plan_lib.Changes
) -> None:
  """Says what separates an index from what it is to be."""
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


def _result(
  job: projection_job.ProjectionJob, *, num_projected: int
) -> dict[str, Any]:
  manifest = index_reader.Index(job.index).manifest
  changes = job.changes
  return {
    'index': job.index,
    'generation': manifest.generation,
    'num_examples': manifest.num_examples,
    'num_projected': num_projected,
    'num_ranges_reused': len(changes.reused),
    'num_ranges_recomputed': len(changes.wanted),
    'num_ranges_dropped': changes.num_dropped,
    'num_rejected': manifest.num_rejected,
    'num_shards': len(manifest.shards),
  }

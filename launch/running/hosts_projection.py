"""A projection by the hosts of a pod, without Beam: each takes its ranges.

Every process projects on its own devices and needs the others only at the end,
when the first one publishes. One that was killed ends the job; the same command
goes on with what is missing.
"""

import concurrent.futures
import json

import jax

from influence_core.devices import multi_device
from launch.output import console as console_lib
from launch.running import watched_projection
from pipeline.index import format as index_format
from pipeline.projection import (
  job as projection_job,
  plan as plan_lib,
  publishing,
  worker as projection_worker,
)
from pipeline.storage import stored_objects


def run(
  console: console_lib.Console,
  job: projection_job.ProjectionJob,
  *,
  num_threads: int,
) -> int:
  """Projects what is missing and publishes the plan; all processes must call.

  Args:
    console: for the progress of this process.
    job: what to do, the same in every process.
    num_threads: of each process, to overlap input with work on the devices.

  Returns:
    How many examples were missing.

  Raises:
    errors.InputError: See `publishing.publish_plan`.
  """
  number, count = jax.process_index(), jax.process_count()
  wanted = job.changes.wanted
  num_missing = sum(item.num_examples for item in wanted)
  num_missing -= watched_projection.num_committed(job.index, wanted)
  ranges = wanted[number::count]
  # Before any work, so that gc spares what is committed meanwhile.
  plan_path = job.save_plan() if number == 0 else ''
  with console.stage('project') as progress:
    shards = _project(job, ranges, num_threads, progress)
    described = json.dumps([shard.to_json() for shard in shards]).encode()
    everywhere = multi_device.gather_bytes(described)
    if number == 0:
      publishing.publish_plan(
        job.index,
        plan_lib.load(plan_path),
        [
          stored_objects.parse(index_format.Shard, shard, 'the job')
          for part in everywhere
          for shard in json.loads(part)
        ],
        job.max_rejected_fraction,
      )
    # Nobody looks at the index before it is there.
    multi_device.any_process(False)
  return num_missing


def _project(job, ranges, num_threads, progress) -> list[index_format.Shard]:
  """Shards of the ranges of this process."""
  if not ranges:
    return []
  worker = projection_worker.ProjectionWorker(job.settings)
  total = sum(item.num_examples for item in ranges)
  shards, num_done = [], 0
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    for shard in pool.map(worker.project_range, ranges):
      shards.append(shard)
      num_done += shard.range.num_examples
      progress(num_done, total, **worker.totals.facts())
  return shards

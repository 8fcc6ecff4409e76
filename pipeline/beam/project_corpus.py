"""The Beam pipeline: ranges -> shards -> one published manifest.

    Create(ranges) | Reshuffle | ParDo(project) | gather | ParDo(publish)

The ranges are those that the newest generation has not.

One chain with one leaf, without side inputs, tagged outputs or output at the
end of a bundle, so that every Beam runner gives the same result. No example
ever crosses an edge: ranges go out, descriptions of committed shards come back.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.utils import shared

from pipeline.beam import runner_options
from pipeline.index import format as index_format
from pipeline.projection import (
  job as projection_job,
  plan as plan_lib,
  publishing,
  worker as projection_worker,
)
from pipeline.storage import stored_objects

# Namespace of the counters that a runner shows.
COUNTERS = 'influence'


class ProjectRange(beam.DoFn):
  """Projects a range and commits its shard, or finds it committed.

  Its counters are for looking at: where ranges are tried again, they count both
  attempts. What an index holds is said by its manifest.
  """

  def __init__(self, settings: projection_worker.ProjectionSettings):
    self._settings = settings
    self._shared = shared.Shared()

  def setup(self) -> None:
    # One worker object per process, however many threads call setup().
    settings = self._settings
    self._worker = self._shared.acquire(
      lambda: projection_worker.ProjectionWorker(settings),
      tag=repr(settings),
    )

  def process(self, element: dict[str, Any]) -> Iterator[dict[str, Any]]:
    shard = self._worker.project_range(index_format.ExampleRange(**element))
    for name, value in (
      ('ranges', 1),
      ('examples_written', shard.num_written),
      ('examples_rejected', shard.num_rejected),
    ):
      beam.metrics.Metrics.counter(COUNTERS, name).inc(value)
    yield shard.to_json()


class PublishManifest(beam.DoFn):
  """Publishes the next generation once every range of the plan is committed."""

  def __init__(self, index: str, plan_path: str, max_rejected_fraction: float):
    self._index = index
    self._plan_path = plan_path
    self._max_rejected_fraction = max_rejected_fraction

  def process(self, element: list[dict[str, Any]]) -> Iterator[int]:
    manifest = publishing.publish_plan(
      self._index,
      plan_lib.load(self._plan_path),
      [stored_objects.parse(index_format.Shard, x, 'the job') for x in element],
      self._max_rejected_fraction,
    )
    yield manifest.generation


def build_pipeline(
  root: beam.Pipeline,
  job: projection_job.ProjectionJob,
  plan_path: str,
  accelerator: str | None = None,
) -> beam.PCollection:
  """Attaches the projection of what is missing to a Beam pipeline.

  Args:
    root: the pipeline.
    job: what to do.
    plan_path: where its plan is.
    accelerator: of the machines that project, as a resource hint of Dataflow.
  """
  # A job that a template has launched needs work even with nothing to do.
  ranges = job.changes.wanted or job.plan.ranges[:1]
  project: beam.PTransform = beam.ParDo(ProjectRange(job.settings))
  if accelerator:
    project = project.with_resource_hints(accelerator=accelerator)
  publish = PublishManifest(job.index, plan_path, job.max_rejected_fraction)
  return (
    root
    | 'Ranges' >> beam.Create([dataclasses.asdict(x) for x in ranges])
    | 'Spread' >> beam.Reshuffle()
    | 'Project' >> project
    | 'Gather'
    >> beam.CombineGlobally(beam.combiners.ToListCombineFn()).without_defaults()
    | 'Publish' >> beam.ParDo(publish)
  )


def submit_pipeline(
  job: projection_job.ProjectionJob,
  plan_path: str,
  options: pipeline_options.PipelineOptions,
  accelerator: str | None = None,
) -> beam.runners.runner.PipelineResult:
  """Begins the job without waiting for it; the result is its handle."""
  root = runner_options.begin_pipeline(options)
  build_pipeline(root, job, plan_path, accelerator)
  return root.run()


def run_pipeline(
  job: projection_job.ProjectionJob,
  plan_path: str,
  options: pipeline_options.PipelineOptions,
) -> None:
  """Does the job on the chosen Beam runner, publishes, and waits for it.

  Raises:
    RuntimeError: The runner failed.
  """
  state = submit_pipeline(job, plan_path, options).wait_until_finish()
  if state not in (None, beam.runners.runner.PipelineState.DONE):
    raise RuntimeError(f'the pipeline ended in state {state}')

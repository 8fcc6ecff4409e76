"""A projection as a Dataflow job: checked, made, and sent without waiting."""

import json
import pathlib
import re
import tempfile
from typing import Any

from apache_beam.options import pipeline_options

from influence_core import errors
from launch.flags.dataflow import DataflowJob
from pipeline.beam import engines, project_corpus, runner_options
from pipeline.projection import job as projection_job, plan as plan_lib
from pipeline.storage import fingerprints


def make_options(
  where: DataflowJob, **instead: str
) -> pipeline_options.PipelineOptions:
  """Beam options of a job; `instead` replaces some of them.

  Raises:
    errors.InputError: Beam does not know one, or it has no such value.

  References:
    https://cloud.google.com/dataflow/docs/guides/right-fitting: a hint of a
    step turns it on, and excludes an accelerator of all workers.
  """
  engine = f'dataflow-{"cpu" if where.right_fitting else where.worker}'
  own = {
    'project': where.place.project,
    'region': where.place.region,
    'sdk_container_image': str(where.image),
    'temp_location': str(where.temp_location),
    'job_name': str(where.name),
  }
  if where.place.endpoint:
    own['dataflow_endpoint'] = where.place.endpoint
  arguments = [
    *(f'--{name}={value}' for name, value in {**own, **instead}.items()),
    *where.beam_arguments,
  ]
  if where.place.endpoint and 'localhost' in where.place.endpoint:
    arguments.append('--no_auth')
  return runner_options.make_options(
    engines.EngineChoice(engine, 1, arguments), tell=lambda _: None
  )


def default_name(index: str) -> str:
  """The name of jobs of an index."""
  last = re.sub('[^a-z0-9]+', '-', index.rstrip('/').rpartition('/')[2].lower())
  return f'influence-{last[:30].strip("-")}-{fingerprints.of_json(index)[:8]}'


def check_remote(**paths: str | None) -> None:
  """Checks that paths can be reached from other machines.

  Raises:
    errors.InputError: One is local.
  """
  for name, path in paths.items():
    if path is not None and '://' not in path:
      raise errors.InputError(
        f'{name} is {path}, which workers elsewhere cannot reach; expected '
        'gs://...'
      )


def submit(
  where: DataflowJob,
  job: projection_job.ProjectionJob,
) -> str:
  """Sends a job; returns its id.

  Raises:
    errors.InputError: Dataflow refuses it.
  """
  # Their packages may not be installed.
  from apache_beam.runners.dataflow.internal import apiclient

  from launch.cloud import dataflow_client

  try:
    with dataflow_client.service_errors():
      result = _run(where, make_options(where), job, job.save_plan())
  except apiclient.DataflowJobAlreadyExistsError as error:
    raise errors.InputError(
      f'{error}; wait for it, or choose another --job_name'
    ) from error
  return result.job_id()


def request(
  where: DataflowJob,
  job: projection_job.ProjectionJob,
) -> dict[str, Any]:
  """What `submit` would send, with nothing sent, staged or stored."""
  with tempfile.TemporaryDirectory() as directory:
    options = make_options(
      where,
      temp_location=directory,
      staging_location=directory,
      template_location=f'{directory}/job.json',
    )
    plan_path = plan_lib.new_path(job.index)
    _run(where, options, job, plan_path)
    text = pathlib.Path(directory, 'job.json').read_text()
    return json.loads(text.replace(directory, str(where.temp_location)))


def _run(
  where: DataflowJob,
  options: pipeline_options.PipelineOptions,
  job: projection_job.ProjectionJob,
  plan_path: str,
) -> Any:
  # For the projection alone, where the job is not of such machines.
  accelerator = engines.GPU_HINT if where.right_fitting else None
  return project_corpus.submit_pipeline(job, plan_path, options, accelerator)

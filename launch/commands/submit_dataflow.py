"""`influence submit dataflow`: a projection that runs without this machine."""

from collections.abc import Sequence
import json
from typing import Any

from influence_core.projection.options import ProjectionOptions
from launch.cloud import dataflow_job, flex_template
from launch.output import console as console_lib
from launch.running import projection
from pipeline.beam import engines
from pipeline.index import choices as index_choices
from pipeline.projection import (
  job as projection_job,
  plan as plan_lib,
  publishing,
)
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  basis: str,
  index: str,
  projection_options: ProjectionOptions,
  vector_dtype: index_choices.VectorDtype,
  range_size: int,
  max_rejected_fraction: float,
  project: str,
  region: str,
  dataflow_endpoint: str | None,
  image: str | None,
  temp_location: str | None,
  worker: engines.DataflowWorker,
  right_fitting: bool,
  job_name: str | None,
  template: str | None,
  print_request: bool,
  even_if_done: bool,
  beam_arguments: Sequence[str],
) -> dict[str, Any]:
  """Sends a job, or says that nothing is to do, or shows the request."""
  dataflow_job.check_remote(basis=basis, index=index, template=template)
  where = dataflow_job.DataflowJob(
    project=project,
    region=region,
    image=image,
    temp_location=temp_location,
    worker=worker,
    name=job_name or dataflow_job.default_name(index),
    right_fitting=right_fitting,
    endpoint=dataflow_endpoint,
    beam_arguments=beam_arguments,
  )
  where.options()  # Checks what goes to Beam.
  if template:
    parameter = flex_template.launch_parameter(
      where,
      template,
      {
        'task': task.import_path,
        'task_args': flex_template.joined(task.arguments),
        'basis': basis,
        'index': index,
        'range_size': range_size,
        'max_rejected_fraction': max_rejected_fraction,
        'vector_dtype': vector_dtype,
        'batch_size': projection_options.batch_size,
        'memory_budget': projection_options.memory_budget_bytes,
        'basis_dtype': projection_options.basis_dtype,
        'basis_placement': projection_options.basis_placement,
      },
    )
    if print_request:
      return _show(console, {'launchParameter': parameter})
    return _launch(console, where, parameter)
  job = projection_job.prepare(
    task=task,
    basis=basis,
    index=index,
    options=projection_options,
    vector_dtype=vector_dtype,
    range_size=range_size,
    max_rejected_fraction=max_rejected_fraction,
  )
  if print_request:
    return _show(console, dataflow_job.request(where, job))
  projection.tell_changes(console, job.changes)
  if not job.changes.wanted and not even_if_done:
    return _finish_here(console, job)
  return _tell_job(console, where, dataflow_job.submit(where, job))


def _show(
  console: console_lib.Console, request: dict[str, Any]
) -> dict[str, Any]:
  console.print(json.dumps(request, indent=2))
  return {'request': request}


def _launch(
  console: console_lib.Console,
  where: dataflow_job.DataflowJob,
  parameter: dict[str, Any],
) -> dict[str, Any]:
  from launch.cloud import dataflow_client

  client = dataflow_client.DataflowClient(
    where.project, where.region, where.endpoint
  )
  return _tell_job(console, where, client.launch_template(parameter))


def _tell_job(
  console: console_lib.Console, where: dataflow_job.DataflowJob, job_id: str
) -> dict[str, Any]:
  """Says how to follow a job."""
  console.print(f'sent {where.name}: {job_id}')
  console.print(
    f'influence status {job_id} --project {where.project} --region '
    f'{where.region} --follow'
  )
  url = (
    f'https://console.cloud.google.com/dataflow/jobs/{where.region}/{job_id}'
    f'?project={where.project}'
  )
  console.print(url)
  return {'job_id': job_id, 'job_name': where.name, 'url': url}


def _finish_here(
  console: console_lib.Console,
  job: projection_job.ProjectionJob,
) -> dict[str, Any]:
  """Publishes what needs no projection, such as dropped files."""
  if not job.changes.is_empty:
    publishing.publish_plan(
      job.index, plan_lib.load(job.save_plan()), (), job.max_rejected_fraction
    )
  console.print(
    f'nothing to project: {job.index} holds all {job.plan.num_examples} '
    'examples'
  )
  return {'job_id': None, 'job_name': None, 'url': None}

"""`influence submit dataflow`: a projection that runs without this machine."""

import dataclasses
import json
from typing import Any

from launch.cloud import dataflow_job, flex_template
from launch.flags.dataflow import DataflowJob
from launch.output import basis_notes, console as console_lib
from launch.running import projection
from pipeline.bases import stored_basis
from pipeline.projection import (
  job as projection_job,
  plan as plan_lib,
  publishing,
)
from pipeline.projection.request import ProjectionRequest


def run(
  console: console_lib.Console,
  *,
  request: ProjectionRequest,
  job: DataflowJob,
  template: str | None,
  print_request: bool,
  even_if_done: bool,
) -> dict[str, Any]:
  """Sends a job, or says that nothing is to do, or shows the request.

  Raises:
    errors.InputError: Something is missing or wrong, or Dataflow refuses it.
  """
  dataflow_job.check_remote(
    basis=request.basis, index=request.index, template=template
  )
  name = job.name or dataflow_job.default_name(request.index)
  job = dataclasses.replace(job, name=name)
  dataflow_job.make_options(job)  # Checks what goes to Beam.
  if template:
    parameter = flex_template.launch_parameter(job, template, request)
    if print_request:
      return _show(console, {'launchParameter': parameter})
    return _launch(console, job, parameter)
  work = projection_job.prepare(request)
  basis_notes.tell(console, stored_basis.load_record(request.basis))
  if print_request:
    return _show(console, dataflow_job.request(job, work))
  projection.tell_changes(console, work.changes)
  if not work.changes.wanted and not even_if_done:
    return _finish_here(console, work)
  return _tell_job(console, job, dataflow_job.submit(job, work))


def _show(
  console: console_lib.Console, request: dict[str, Any]
) -> dict[str, Any]:
  console.print(json.dumps(request, indent=2))
  return {'request': request}


def _launch(
  console: console_lib.Console,
  job: DataflowJob,
  parameter: dict[str, Any],
) -> dict[str, Any]:
  from launch.cloud import dataflow_client

  client = dataflow_client.DataflowClient(job.place)
  return _tell_job(console, job, client.launch_template(parameter))


def _tell_job(
  console: console_lib.Console, job: DataflowJob, job_id: str
) -> dict[str, Any]:
  """Says how to follow a job."""
  project, region = job.place.project, job.place.region
  console.print(f'sent {job.name}: {job_id}')
  console.print(
    f'influence status {job_id} --project {project} --region {region} --follow'
  )
  url = (
    f'https://console.cloud.google.com/dataflow/jobs/{region}/{job_id}'
    f'?project={project}'
  )
  console.print(url)
  return {'job_id': job_id, 'job_name': job.name, 'url': url}


def _finish_here(
  console: console_lib.Console,
  work: projection_job.ProjectionJob,
) -> dict[str, Any]:
  """Publishes what needs no projection, such as dropped files."""
  if not work.changes.is_empty:
    plan = plan_lib.load(work.save_plan())
    publishing.publish_plan(work.index, plan, (), work.max_rejected_fraction)
  console.print(
    f'nothing to project: {work.index} holds all {work.plan.num_examples} '
    'examples'
  )
  return {'job_id': None, 'job_name': None, 'url': None}

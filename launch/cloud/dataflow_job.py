"""A projection as a Dataflow job: checked, made, and sent without waiting."""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import re
import tempfile
from typing import Any

from apache_beam.options import pipeline_options

from influence_core import errors
from pipeline.beam import engines, project_corpus, runner_options
from pipeline.projection import job as projection_job, plan as plan_lib
from pipeline.storage import fingerprints

_JOB_NAME = re.compile('[a-z]([-a-z0-9]{0,61}[a-z0-9])?')


@dataclasses.dataclass(frozen=True)
class DataflowJob:
  """Where and how a job runs.

  Attributes:
    project: id of the Google Cloud project.
    region: such as 'us-central1'.
    image: container of the workers.
    temp_location: gs:// directory.
    worker: what works.
    name: of the job.
    right_fitting: whether GPUs are for the projection alone, and all else is on
      machines without.
    endpoint: URL of another server than Google's.
    beam_arguments: more options, which come last.
  """

  project: str
  region: str
  image: str | None
  temp_location: str | None
  worker: engines.DataflowWorker
  name: str
  right_fitting: bool = False
  endpoint: str | None = None
  beam_arguments: Sequence[str] = ()

  def __post_init__(self):
    if not _JOB_NAME.fullmatch(self.name):
      raise errors.InputError(
        f'job_name is {self.name!r}, expected up to 63 of a-z, 0-9 and -, from '
        'a letter to no -'
      )
    if not (self.temp_location or '').startswith('gs://'):
      raise errors.InputError(
        f'temp_location is {self.temp_location!r}, expected a gs:// directory'
      )
    if not self.image:
      raise errors.InputError(
        'image is missing: workers need a container that has this package; '
        'build launch/deploy/Containerfile and pass --image'
      )
    if self.right_fitting and self.worker != 'gpu':
      raise errors.InputError(
        f'right_fitting is for worker gpu, not {self.worker}; leave it out'
      )

  def options(self, **instead: str) -> pipeline_options.PipelineOptions:
    """Beam options; `instead` replaces some of them.

    References:
      https://cloud.google.com/dataflow/docs/guides/right-fitting: a hint of a
      step turns it on, and excludes an accelerator of all workers.
    """
    engine = f'dataflow-{"cpu" if self.right_fitting else self.worker}'
    own = {
      'project': self.project,
      'region': self.region,
      'sdk_container_image': str(self.image),
      'temp_location': str(self.temp_location),
      'job_name': self.name,
    }
    if self.endpoint:
      own['dataflow_endpoint'] = self.endpoint
    arguments = [
      *(f'--{name}={value}' for name, value in {**own, **instead}.items()),
      *self.beam_arguments,
    ]
    if self.endpoint and 'localhost' in self.endpoint:
      arguments.append('--no_auth')
    return runner_options.make_options(
      engines.EngineChoice(engine, 1, arguments), tell=lambda _: None
    )

  @property
  def accelerator_hint(self) -> str | None:
    """For the projection alone, where the job is not of such machines."""
    return engines.GPU_HINT if self.right_fitting else None


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
      result = _run(where, where.options(), job, job.save_plan())
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
    options = where.options(
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
  return project_corpus.submit_pipeline(
    # A job that a template has launched needs work even with nothing to do.
    job.changes.wanted or job.plan.ranges[:1],
    plan_path=plan_path,
    settings=job.settings,
    max_rejected_fraction=job.max_rejected_fraction,
    options=options,
    accelerator=where.accelerator_hint,
  )

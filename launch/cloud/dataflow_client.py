"""Dataflow's API: launches templates and shows jobs."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import datetime
import json
from typing import Any

import requests

from influence_core import errors
from launch.cloud import credentials
from launch.flags.dataflow import Place

try:
  from google.api_core import client_options, exceptions
  from google.auth import credentials as credentials_lib
  from google.cloud import dataflow_v1beta3 as dataflow
except ImportError as error:
  raise errors.InputError(
    f'Dataflow needs more packages ({error}); install '
    "'influence-pipeline[dataflow]'"
  ) from error

# What a person wants to read of a job's log.
_IMPORTANT = ('JOB_MESSAGE_BASIC', 'JOB_MESSAGE_WARNING', 'JOB_MESSAGE_ERROR')
_DONE = 'JOB_STATE_DONE'
_ENDED = {
  _DONE,
  'JOB_STATE_FAILED',
  'JOB_STATE_CANCELLED',
  'JOB_STATE_DRAINED',
  'JOB_STATE_UPDATED',
}


@dataclasses.dataclass(frozen=True)
class JobStatus:
  """What is known of a job.

  Attributes:
    job_id: of Dataflow.
    name: chosen at submission.
    state: such as JOB_STATE_RUNNING.
    seconds: since its creation, or how long it took.
    counters: committed values by name; attempts that failed do not count.
  """

  job_id: str
  name: str
  state: str
  seconds: float
  counters: Mapping[str, int]

  @property
  def has_ended(self) -> bool:
    return self.state in _ENDED

  @property
  def is_done(self) -> bool:
    """Whether it has ended with all its work done, the only success."""
    return self.state == _DONE


class DataflowClient:
  """Jobs of one project and region."""

  def __init__(self, place: Place):
    """Connects to Google's server, or to that of the place."""
    arguments: dict[str, Any] = {'transport': 'rest'}
    if place.endpoint:
      arguments['client_options'] = client_options.ClientOptions(
        api_endpoint=place.endpoint
      )
      if 'localhost' in place.endpoint:
        arguments['credentials'] = credentials_lib.AnonymousCredentials()
    self.region = place.region
    self._place = {'project_id': place.project, 'location': place.region}
    with service_errors():
      self._jobs = dataflow.JobsV1Beta3Client(**arguments)
      self._messages = dataflow.MessagesV1Beta3Client(**arguments)
      self._metrics = dataflow.MetricsV1Beta3Client(**arguments)
      self._templates = dataflow.FlexTemplatesServiceClient(**arguments)

  def status(self, job_id: str) -> JobStatus:
    """A job as it is now.

    Raises:
      errors.InputError: There is no such job, or it cannot be asked for.
    """
    with service_errors():
      job = self._jobs.get_job(
        dataflow.GetJobRequest(**self._place, job_id=job_id)
      )
      metrics = self._metrics.get_job_metrics(
        dataflow.GetJobMetricsRequest(**self._place, job_id=job_id)
      )
    state = dataflow.JobState(job.current_state).name
    now = datetime.datetime.now(datetime.UTC)
    stop = job.current_state_time if state in _ENDED else now
    return JobStatus(
      job.id,
      job.name,
      state,
      (stop - job.create_time).total_seconds() if job.create_time else 0.0,
      {
        metric.name.name: int(metric.scalar)
        for metric in metrics.metrics
        if metric.name.origin == 'user'
        and 'tentative' not in metric.name.context
      },
    )

  def messages(self, job_id: str) -> Iterator[tuple[str, str, str]]:
    """(id, importance, text) of what the job has logged, oldest first."""
    with service_errors():
      for message in self._messages.list_job_messages(
        dataflow.ListJobMessagesRequest(**self._place, job_id=job_id)
      ):
        importance = dataflow.JobMessageImportance(
          message.message_importance
        ).name
        if importance in _IMPORTANT:
          text = ' '.join(message.message_text.split())
          yield message.id, importance.rpartition('_')[2], text

  def launch_template(self, parameter: Mapping[str, Any]) -> str:
    """Launches a flex template; returns the id of the job.

    Args:
      parameter: the launchParameter of the request, as in JSON.

    Raises:
      errors.InputError: The service refuses it.
    """
    content = {'project_id': self._place['project_id'], 'location': self.region}
    request = dataflow.LaunchFlexTemplateRequest.from_json(
      json.dumps({**content, 'launch_parameter': dict(parameter)})
    )
    with service_errors():
      return self._templates.launch_flex_template(request).job.id


@contextlib.contextmanager
def service_errors() -> Iterator[None]:
  """Errors of Google's libraries in one line."""
  try:
    with credentials.credential_errors():
      yield
  except exceptions.AlreadyExists as error:
    raise errors.InputError(
      f'Dataflow has an active job of this name ({error.message}); wait for it '
      'or choose another --job_name'
    ) from error
  except exceptions.GoogleAPICallError as error:
    raise errors.InputError(
      f'Dataflow answers {error.code}: {error.message}; check --project, '
      '--region and permissions'
    ) from error
  except (exceptions.RetryError, requests.RequestException) as error:
    raise errors.InputError(
      f'Dataflow cannot be reached ({error}); check the network'
    ) from error

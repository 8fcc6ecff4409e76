"""`influence submit batch`: a command as a job of Cloud Batch."""

from collections.abc import Mapping, Sequence
import json
from typing import Any

import google.auth
from google.auth import credentials as auth_credentials
from google.auth.transport import requests as transport
import requests

from influence_core import errors
from launch.cloud import cluster_job, credentials
from launch.output import console as console_lib

_ENDPOINT = 'https://batch.googleapis.com'
_SCOPES = ['https://www.googleapis.com/auth/cloud-platform']
_TIMEOUT_SECONDS = 60


def run(
  console: console_lib.Console,
  *,
  project: str,
  region: str,
  network: str | None,
  subnetwork: str | None,
  print_request: bool,
  batch_endpoint: str | None,
  command: Sequence[str],
  label: Mapping[str, str],
  job_name: str,
  **job: Any,
) -> dict[str, Any]:
  """Sends a job, or shows it.

  Raises:
    errors.InputError: Something of the job is wrong, or it is refused.
  """
  request = cluster_job.batch(
    cluster_job.ClusterJob(
      name=job_name, command=tuple(command), labels=label, **job
    ),
    region=region,
    network=network,
    subnetwork=subnetwork,
  )
  if print_request:
    console.print(json.dumps(request, indent=2))
    return {'request': request}
  answer = _send(
    f'{batch_endpoint or _ENDPOINT}/v1/projects/{project}/locations/{region}'
    f'/jobs?job_id={job_name}',
    request,
  )
  url = (
    f'https://console.cloud.google.com/batch/jobsDetail/regions/{region}/jobs/'
    f'{job_name}/details?project={project}'
  )
  console.print(f'sent {answer["name"]}')
  console.print(url)
  return {'job': answer['name'], 'url': url}


def _send(url: str, request: Mapping[str, Any]) -> dict[str, Any]:
  try:
    with credentials.credential_errors():
      own: Any = auth_credentials.AnonymousCredentials()
      if not url.startswith('http://localhost'):
        own, _ = google.auth.default(scopes=_SCOPES)
      session = transport.AuthorizedSession(own)
      answer = session.post(url, json=request, timeout=_TIMEOUT_SECONDS)
  except requests.RequestException as error:
    raise errors.InputError(
      f'Cloud Batch cannot be reached ({error}); check the network'
    ) from error
  if answer.ok:
    return answer.json()
  try:
    message = answer.json()['error']['message']
  except (ValueError, KeyError):
    message = answer.text
  advice = (
    'choose another --job_name'
    if answer.status_code == 409
    else ('check --project, --region and permissions')
  )
  raise errors.InputError(
    f'Cloud Batch answers {answer.status_code}: {message}; {advice}'
  )

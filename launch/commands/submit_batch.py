"""`influence submit batch`: a command as a job of Cloud Batch."""

from collections.abc import Mapping
import json
from typing import Any

import google.auth
from google.auth import credentials as auth_credentials
from google.auth.transport import requests as transport
import requests

from influence_core import errors
from launch.cloud import cluster_job, credentials
from launch.flags.cluster import BatchPlace, ClusterJob
from launch.output import console as console_lib

_ENDPOINT = 'https://batch.googleapis.com'
_SCOPES = ['https://www.googleapis.com/auth/cloud-platform']
_TIMEOUT_SECONDS = 60


def run(
  console: console_lib.Console,
  *,
  place: BatchPlace,
  job: ClusterJob,
  print_request: bool,
) -> dict[str, Any]:
  """Sends a job, or shows it.

  Raises:
    errors.InputError: Something of the job is wrong, or it is refused.
  """
  request = cluster_job.batch(job, place)
  if print_request:
    console.print(json.dumps(request, indent=2))
    return {'request': request}
  answer = _send(
    f'{place.endpoint or _ENDPOINT}/v1/projects/{place.project}/locations/'
    f'{place.region}/jobs?job_id={job.name}',
    request,
  )
  url = (
    f'https://console.cloud.google.com/batch/jobsDetail/regions/{place.region}'
    f'/jobs/{job.name}/details?project={place.project}'
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

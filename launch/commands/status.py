"""`influence status`: a Dataflow job, as it is or until it ends."""

import time
from typing import Any

from influence_core import errors
from launch.flags.dataflow import Place
from launch.output import console as console_lib

_POLL_SECONDS = 15.0
# Ends of a job that has not done its work.
_ENDS = {
  'JOB_STATE_FAILED': 'failed',
  'JOB_STATE_CANCELLED': 'was cancelled',
  'JOB_STATE_DRAINED': 'was drained',
  'JOB_STATE_UPDATED': 'was replaced by another one',
}


def run(
  console: console_lib.Console,
  *,
  job: str,
  place: Place,
  follow: bool,
) -> dict[str, Any]:
  """Tells the state of a job, with its messages and counters.

  Raises:
    errors.InputError: There is no such job, or it has ended without being done.
  """
  from launch.cloud import dataflow_client

  client = dataflow_client.DataflowClient(place)
  told: set[str] = set()
  while True:
    status = client.status(job)
    last = ''
    for number, importance, text in client.messages(job):
      if importance == 'ERROR':
        last = text
      if number not in told:
        told.add(number)
        console.tell(f'{importance} {text}')
    if status.has_ended or not follow:
      break
    examples = status.counters.get('examples_written', 0)
    console_lib.log_pairs(
      state=status.state, seconds=round(status.seconds), examples=examples
    )
    time.sleep(_POLL_SECONDS)
  if status.has_ended and not status.is_done:
    raise errors.InputError(
      f'job {status.name} ({job}) {_ENDS.get(status.state, status.state)}: '
      f'{last or "it does not say why"}; submit it again, what is done is kept'
    )
  counters = ', '.join(f'{k} {v:,}' for k, v in sorted(status.counters.items()))
  console.print(
    f'{status.name}: {status.state} after {status.seconds:.0f} s'
    f'{"; " if counters else ""}{counters}'
  )
  return {
    'job_id': status.job_id,
    'job_name': status.name,
    'state': status.state,
    'seconds': status.seconds,
    'counters': dict(status.counters),
  }

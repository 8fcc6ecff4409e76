"""How the processes of a job on several hosts find each other."""

from collections.abc import Sequence
import contextlib
import os
import pathlib
import socket
from typing import Any

import jax

from influence_core import errors

# Where Cloud Batch lists the machines of a task group.
BATCH_HOSTS_FILE = '/etc/cloudbatch-taskgroup-hosts'

_PORT = 8476
_VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def join() -> None:
  """Joins the other processes.

  By JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID where they
  are set, by the list of machines on Cloud Batch, else as JAX finds them: on
  TPU pods and Slurm.

  Raises:
    errors.InputError: They cannot be found or do not answer.
  """
  hosts_file = pathlib.Path(
    os.environ.get('BATCH_HOSTS_FILE') or BATCH_HOSTS_FILE
  )
  if _VARIABLES[0] not in os.environ and hosts_file.exists():
    os.environ.update(
      batch_environment(hosts_file.read_text().split(), _own_names())
    )
  try:
    jax.distributed.initialize(
      num_processes=_number(_VARIABLES[1]), process_id=_number(_VARIABLES[2])
    )
  except (RuntimeError, ValueError) as error:
    raise errors.InputError(
      f'cannot join the other processes ({error}); outside of TPU pods, Slurm, '
      f'Cloud Batch and Kubernetes set {", ".join(_VARIABLES)}'
    ) from error


def batch_environment(
  hosts: Sequence[str], own_names: Sequence[str]
) -> dict[str, str]:
  """What a process on one of some machines is told.

  Args:
    hosts: names or addresses of all machines, the same everywhere.
    own_names: those of this one.

  Raises:
    errors.InputError: This machine is not among them.
  """
  hosts = sorted(hosts)
  for number, host in enumerate(hosts):
    if host in own_names:
      return dict(
        zip(
          _VARIABLES,
          (f'{hosts[0]}:{_PORT}', str(len(hosts)), str(number)),
          strict=True,
        )
      )
  raise errors.InputError(
    f'this machine ({", ".join(own_names)}) is not among the hosts of the job '
    f'({", ".join(hosts)}); run the container with --network host'
  )


def kubernetes_environment(
  job_name: str, num_hosts: int
) -> list[dict[str, Any]]:
  """Variables of the pods of an indexed job with a service of its name."""
  index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
  return [
    {'name': _VARIABLES[0], 'value': f'{job_name}-0.{job_name}:{_PORT}'},
    {'name': _VARIABLES[1], 'value': str(num_hosts)},
    {
      'name': _VARIABLES[2],
      'valueFrom': {'fieldRef': {'fieldPath': index}},
    },
  ]


def _own_names() -> list[str]:
  name = socket.gethostname()
  names = [name, name.partition('.')[0], socket.getfqdn()]
  with contextlib.suppress(OSError):
    names += socket.gethostbyname_ex(name)[2]
  return list(dict.fromkeys(names))


def _number(variable: str) -> int | None:
  text = os.environ.get(variable)
  if text is None:
    return None
  try:
    return int(text)
  except ValueError as error:
    raise errors.InputError(
      f'{variable} is {text!r}, expected a number'
    ) from error

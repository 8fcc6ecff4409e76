"""A command of `influence` as a job of Cloud Batch or Kubernetes."""

import re
from typing import Any

from influence_core import errors
from launch.flags import parser as flags_lib
from launch.flags.cluster import BatchPlace, ClusterJob
from launch.running import processes

# What can run without anybody looking at it.
COMMANDS = (
  'fit-basis',
  'project',
  'topk',
  'self-influence',
  'reindex',
  'verify',
  'gc',
)
# Machines that have GPUs whether or not an accelerator is named.
_GPU_MACHINES = re.compile('(a[2-9]|g[2-9])[a-z]?-')
_MAX_BATCH_RETRIES = 10
# For the container and what is copied from the store; as on Dataflow.
_BOOT_DISK_GB = 100
# Flags that name places, which other machines must reach.
_PLACES = ('out', 'basis', 'index', 'config', 'metrics_file')


def _check_command(job: ClusterJob) -> None:
  """Checks the command as if it were to run here."""
  if not job.command or job.command[0] not in COMMANDS:
    raise errors.InputError(
      f'the command is {" ".join(job.command) or "missing"}; expected after '
      f'-- one of {", ".join(COMMANDS)} with its flags'
    )
  flags, _ = flags_lib.parse(job.command)
  for name in _PLACES:
    path = getattr(flags, name, None)
    if isinstance(path, str) and '://' not in path:
      raise errors.InputError(
        f'{name} is {path}, which other machines cannot reach; expected '
        'gs://...'
      )
  if job.num_hosts > 1 and not getattr(flags, 'multi_process', False):
    raise errors.InputError(
      f'num_hosts is {job.num_hosts}, but {job.command[0]} has no '
      '--multi_process; add it, or use one host'
    )


def batch(job: ClusterJob, place: BatchPlace) -> dict[str, Any]:
  """A job of Cloud Batch, as its API takes it.

  Raises:
    errors.InputError: Its command is wrong, it is of TPUs, or with too many
      retries for Cloud Batch.
  """
  _check_command(job)
  if job.is_tpu:
    raise errors.InputError(
      f'accelerator is {job.accelerator}, but Cloud Batch has GPUs only; use '
      'submit kubernetes'
    )
  if job.num_retries > _MAX_BATCH_RETRIES:
    raise errors.InputError(
      f'num_retries is {job.num_retries}, expected up to {_MAX_BATCH_RETRIES} '
      'on Cloud Batch'
    )
  allocation: dict[str, Any] = {
    'location': {'allowedLocations': [f'regions/{place.region}']},
    'instances': [_batch_instances(job)],
    'labels': dict(job.labels),
  }
  if job.service_account:
    allocation['serviceAccount'] = {'email': job.service_account}
  interface = {'network': place.network, 'subnetwork': place.subnetwork}
  if given := {k: v for k, v in interface.items() if v}:
    allocation['network'] = {'networkInterfaces': [given]}
  container: dict[str, Any] = {
    'imageUri': job.image,
    'entrypoint': 'influence',
    'commands': list(job.command),
  }
  if job.num_hosts > 1:
    # Processes find each other by the names of their machines.
    hosts = processes.BATCH_HOSTS_FILE
    container['options'] = '--network host'
    container['volumes'] = [f'{hosts}:{hosts}:ro']
  return {
    'taskGroups': [
      {
        'taskCount': job.num_hosts,
        'parallelism': job.num_hosts,
        'taskCountPerNode': 1,
        'requireHostsFile': job.num_hosts > 1,
        'taskSpec': {
          'runnables': [{'container': container}],
          'maxRetryCount': job.num_retries,
          'maxRunDuration': f'{round(job.max_hours * 3600)}s',
        },
      }
    ],
    'allocationPolicy': allocation,
    'labels': dict(job.labels),
    'logsPolicy': {'destination': 'CLOUD_LOGGING'},
  }


def _batch_instances(job: ClusterJob) -> dict[str, Any]:
  """What machines, and whether they need a driver."""
  machine_type = job.machine_type or ''
  policy: dict[str, Any] = {
    'provisioningModel': 'SPOT' if job.spot else 'STANDARD',
    'bootDisk': {'sizeGb': _BOOT_DISK_GB},
  }
  if machine_type:
    policy['machineType'] = machine_type
  if job.accelerator:
    policy['accelerators'] = [
      {'type': job.accelerator, 'count': job.num_accelerators}
    ]
  has_gpus = bool(job.accelerator or _GPU_MACHINES.match(machine_type))
  return {'policy': policy, 'installGpuDrivers': has_gpus}


def kubernetes(job: ClusterJob) -> list[dict[str, Any]]:
  """An indexed job, and for several hosts the service that names them.

  Raises:
    errors.InputError: Its command is wrong, or a TPU has no topology, or
      something else has one.
  """
  _check_command(job)
  if job.is_tpu != bool(job.topology):
    raise errors.InputError(
      f'accelerator is {job.accelerator} and topology {job.topology}; a TPU '
      'needs a topology, such as 2x4, and nothing else has one'
    )
  labels = {**job.labels, 'app': job.name}
  container: dict[str, Any] = {
    'name': 'influence',
    'image': job.image,
    'command': ['influence', *job.command],
    'env': [],
    'resources': {},
  }
  pod: dict[str, Any] = {
    'restartPolicy': 'Never',
    'containers': [container],
    'nodeSelector': _node_selector(job),
  }
  if job.service_account:
    pod['serviceAccountName'] = job.service_account
  if job.accelerator:
    kind = 'google.com/tpu' if job.is_tpu else 'nvidia.com/gpu'
    container['resources'] = {'limits': {kind: str(job.num_accelerators)}}
  manifests = [
    {
      'apiVersion': 'batch/v1',
      'kind': 'Job',
      'metadata': {'name': job.name, 'labels': labels},
      'spec': {
        'completions': job.num_hosts,
        'parallelism': job.num_hosts,
        'completionMode': 'Indexed',
        'backoffLimit': job.num_retries * job.num_hosts,
        'activeDeadlineSeconds': round(job.max_hours * 3600),
        'template': {'metadata': {'labels': labels}, 'spec': pod},
      },
    }
  ]
  if job.num_hosts > 1:
    pod['subdomain'] = job.name
    container['env'] = processes.kubernetes_environment(job.name, job.num_hosts)
    manifests.append(_service(job.name, labels))
  return manifests


def _node_selector(job: ClusterJob) -> dict[str, str]:
  """Labels of the nodes that a pod may run on, as GKE gives them."""
  wanted: dict[str, str] = {}
  if job.machine_type:
    wanted['node.kubernetes.io/instance-type'] = job.machine_type
  if job.spot:
    wanted['cloud.google.com/gke-spot'] = 'true'
  if job.accelerator:
    label = 'gke-tpu-accelerator' if job.is_tpu else 'gke-accelerator'
    wanted[f'cloud.google.com/{label}'] = job.accelerator
  if job.topology:
    wanted['cloud.google.com/gke-tpu-topology'] = job.topology
  return wanted


def _service(name: str, labels: dict[str, str]) -> dict[str, Any]:
  """Gives the pods of a job names, by which they find each other."""
  return {
    'apiVersion': 'v1',
    'kind': 'Service',
    'metadata': {'name': name, 'labels': labels},
    'spec': {
      'clusterIP': 'None',
      # Names must be there before the processes have found each other.
      'publishNotReadyAddresses': True,
      'selector': {'app': name},
    },
  }

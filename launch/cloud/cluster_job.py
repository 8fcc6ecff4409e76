"""A command of `influence` as a job of Cloud Batch or Kubernetes."""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

from influence_core import errors
from launch.flags import parser as flags_lib
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
_NAME = re.compile('[a-z]([-a-z0-9]{0,61}[a-z0-9])?')
# Machines that have GPUs whether or not an accelerator is named.
_GPU_MACHINES = re.compile('(a[2-9]|g[2-9])[a-z]?-')
_MAX_BATCH_RETRIES = 10
# For the container and what is copied from the store; as on Dataflow.
_BOOT_DISK_GB = 100
# Flags that name places, which other machines must reach.
_PLACES = ('out', 'basis', 'index', 'config', 'metrics_file')


@dataclasses.dataclass(frozen=True)
class ClusterJob:
  """What runs, and on which machines.

  Attributes:
    name: of the job.
    image: container, from launch/deploy/Containerfile.
    command: what follows `influence`.
    machine_type: of Compute Engine; on Kubernetes that of the nodes, or None.
    accelerator: type, such as nvidia-l4 or tpu-v5-lite-podslice.
    num_accelerators: on each machine.
    topology: of a TPU slice, such as 2x4.
    num_hosts: machines that work together, one process on each.
    spot: whether machines may be taken away, for less money.
    max_hours: after which the job is stopped.
    num_retries: of each machine's task.
    service_account: email; on Kubernetes its name.
    labels: by name.
  """

  name: str
  image: str
  command: Sequence[str]
  machine_type: str | None = None
  accelerator: str | None = None
  num_accelerators: int = 1
  topology: str | None = None
  num_hosts: int = 1
  spot: bool = False
  max_hours: float = 24.0
  num_retries: int = 3
  service_account: str | None = None
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not _NAME.fullmatch(self.name):
      raise errors.InputError(
        f'job_name is {self.name!r}, expected up to 63 of a-z, 0-9 and -, from '
        'a letter to no -'
      )
    for field, value, least in (
      ('num_hosts', self.num_hosts, 1),
      ('num_accelerators', self.num_accelerators, 1),
      ('num_retries', self.num_retries, 0),
    ):
      if value < least:
        raise errors.InputError(
          f'{field} is {value}, expected at least {least}'
        )
    if not self.max_hours > 0:
      raise errors.InputError(
        f'max_hours is {self.max_hours}, expected a positive number'
      )
    self._check_command()

  def _check_command(self) -> None:
    if not self.command or self.command[0] not in COMMANDS:
      raise errors.InputError(
        f'the command is {" ".join(self.command) or "missing"}; expected after '
        f'-- one of {", ".join(COMMANDS)} with its flags'
      )
    flags, values = flags_lib.parse(self.command)
    for name in _PLACES:
      path = values.get(name) or getattr(flags, name, None)
      if isinstance(path, str) and '://' not in path:
        raise errors.InputError(
          f'{name} is {path}, which other machines cannot reach; expected '
          'gs://...'
        )
    if self.num_hosts > 1 and not values.get('multi_process'):
      raise errors.InputError(
        f'num_hosts is {self.num_hosts}, but {self.command[0]} has no '
        '--multi_process; add it, or use one host'
      )

  @property
  def is_tpu(self) -> bool:
    return bool(self.accelerator and self.accelerator.startswith('tpu'))


def batch(
  job: ClusterJob,
  *,
  region: str,
  network: str | None = None,
  subnetwork: str | None = None,
) -> dict[str, Any]:
  """A job of Cloud Batch, as its API takes it.

  Raises:
    errors.InputError: It is of TPUs, or with too many retries for Cloud Batch.
  """
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
    'location': {'allowedLocations': [f'regions/{region}']},
    'instances': [_batch_instances(job)],
    'labels': dict(job.labels),
  }
  if job.service_account:
    allocation['serviceAccount'] = {'email': job.service_account}
  if network or subnetwork:
    interface = {'network': network, 'subnetwork': subnetwork}
    allocation['network'] = {
      'networkInterfaces': [{k: v for k, v in interface.items() if v}]
    }
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
    errors.InputError: A TPU has no topology, or something else has one.
  """
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
    'nodeSelector': {},
  }
  if job.service_account:
    pod['serviceAccountName'] = job.service_account
  if job.machine_type:
    pod['nodeSelector']['node.kubernetes.io/instance-type'] = job.machine_type
  if job.spot:
    pod['nodeSelector']['cloud.google.com/gke-spot'] = 'true'
  if job.accelerator:
    kind = 'google.com/tpu' if job.is_tpu else 'nvidia.com/gpu'
    container['resources'] = {'limits': {kind: str(job.num_accelerators)}}
    label = 'gke-tpu-accelerator' if job.is_tpu else 'gke-accelerator'
    pod['nodeSelector'][f'cloud.google.com/{label}'] = job.accelerator
    if job.topology:
      pod['nodeSelector']['cloud.google.com/gke-tpu-topology'] = job.topology
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
    manifests.append(
      {
        'apiVersion': 'v1',
        'kind': 'Service',
        'metadata': {'name': job.name, 'labels': labels},
        'spec': {
          'clusterIP': 'None',
          # Names must be there before the processes have found each other.
          'publishNotReadyAddresses': True,
          'selector': {'app': job.name},
        },
      }
    )
  return manifests

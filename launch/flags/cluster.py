"""What can be typed of jobs on Cloud Batch and Kubernetes."""

from collections.abc import Mapping, Sequence
import dataclasses

from influence_core import errors
from launch.flags import common as common_flags, fields


@dataclasses.dataclass(frozen=True)
class ClusterJob:
  """What runs, and on which machines.

  Attributes:
    image: container image, from launch/deploy/Containerfile.
    name: name of the job: a-z, 0-9 and -.
    command: what follows `influence`.
    machine_type: machine type, such as g2-standard-8; on Kubernetes that of the
      nodes.
    accelerator: accelerator type, such as nvidia-l4; on Kubernetes also
      tpu-v5-lite-podslice.
    num_accelerators: number of accelerators on each machine.
    topology: topology of a TPU slice, such as 2x4, with --num_accelerators of
      each host.
    num_hosts: number of machines that work together by --multi_process, a
      process on each.
    spot: use cheaper machines that may be taken away.
    max_hours: hours after which the job is stopped.
    num_retries: number of retries of a task that fails.
    service_account: account that the job runs as: an email; on Kubernetes its
      name.
    labels: label of the job and its machines; may be repeated.
  """

  image: str
  name: str
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
    common_flags.check_job_name(self.name)
    errors.check_at_least_one(
      num_hosts=self.num_hosts, num_accelerators=self.num_accelerators
    )
    if not self.max_hours > 0:
      raise errors.InputError(
        f'max_hours is {self.max_hours}, expected a positive number'
      )

  @property
  def is_tpu(self) -> bool:
    return bool(self.accelerator and self.accelerator.startswith('tpu'))


@dataclasses.dataclass(frozen=True)
class BatchPlace:
  """Where jobs of Cloud Batch run.

  Attributes:
    project: Google Cloud project.
    region: region, such as us-central1.
    network: network of the machines, such as global/networks/default.
    subnetwork: subnetwork of the machines, such as regions/R/subnetworks/S.
    endpoint: server to use instead of Google's.
  """

  project: str
  region: str
  network: str | None = None
  subnetwork: str | None = None
  endpoint: str | None = None


_JOB_FLAGS = {
  'name': fields.Flag('job_name'),
  'labels': fields.Flag('label'),
}
_COMMAND = {'command': fields.Rest('command')}
_CHECKED = (
  '\n\nAfter -- comes the command, as on this machine; it is checked here '
  'before anything is sent.'
)


def add_batch(parser: fields.CommandParser) -> None:
  endpoint = {'endpoint': fields.Flag('batch_endpoint', metavar='URL')}
  parser.add(fields.Group('place', BatchPlace, endpoint))
  parser.add(
    fields.Group(
      'job', ClusterJob, _JOB_FLAGS, left_out=('topology',), parts=_COMMAND
    )
  )
  parser.add_argument(
    '--print_request',
    action='store_true',
    help='print what would be sent as JSON, and send nothing',
  )
  parser.epilog = f'{parser.epilog}{_CHECKED}'


def add_kubernetes(parser: fields.CommandParser) -> None:
  parser.add(fields.Group('job', ClusterJob, _JOB_FLAGS, parts=_COMMAND))
  parser.epilog = f'{parser.epilog}{_CHECKED}'

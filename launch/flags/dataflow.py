"""What can be typed of Dataflow: jobs, their place, templates."""

from collections.abc import Sequence
import dataclasses

from influence_core import errors
from launch.flags import (
  common as common_flags,
  fields,
  project as project_flags,
)
from pipeline.beam import engines

_MORE_OPTIONS = """
Everything after -- goes to Beam, for instance
  --max_num_workers=100 --machine_type=g2-standard-16 --labels=team=search
  --service_account_email=... --network=... --subnetwork=... --no_use_public_ips
  --dataflow_service_options=worker_accelerator=type:nvidia-tesla-t4;count:1;...
A job has a name, by default made from the index: while it runs, another of the
same index is refused."""


@dataclasses.dataclass(frozen=True)
class Place:
  """Where jobs run.

  Attributes:
    project: Google Cloud project.
    region: region, such as us-central1.
    endpoint: server to use instead of Google's.
  """

  project: str
  region: str
  endpoint: str | None = None


@dataclasses.dataclass(frozen=True)
class DataflowJob:
  """Where and how a job runs.

  Attributes:
    place: project and region.
    image: container image of the workers, from launch/deploy/Containerfile.
    temp_location: gs:// directory for files of the job.
    worker: machines of the workers: 8 cores, an NVIDIA L4, a TPU v5e.
    right_fitting: with --worker gpu, use GPUs for the projection alone, by a
      resource hint.
    name: name of the job; default: made from the index.
    beam_arguments: more options of Beam, which come last.
  """

  place: Place
  image: str | None = None
  temp_location: str | None = None
  worker: engines.DataflowWorker = 'cpu'
  right_fitting: bool = False
  name: str | None = None
  beam_arguments: Sequence[str] = ()

  def __post_init__(self):
    if self.name is not None:
      common_flags.check_job_name(self.name)
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


_NAMES = {
  'endpoint': fields.Flag('dataflow_endpoint', metavar='URL'),
  'name': fields.Flag('job_name'),
}
PLACE = fields.Group('place', Place, _NAMES)
JOB = fields.Group(
  'job',
  DataflowJob,
  _NAMES,
  parts={'beam_arguments': fields.Rest('beam_arguments')},
)


def add_submit(parser: fields.CommandParser) -> None:
  parser.add(project_flags.REQUEST)
  parser.add(JOB)
  parser.add_argument(
    '--template',
    metavar='FILE',
    help=(
      'gs:// file from dataflow-template: the job is made there, and nothing '
      'is loaded here'
    ),
  )
  parser.add_argument(
    '--even_if_done',
    action='store_true',
    help='send a job even if nothing is to do, as launching a template needs',
  )
  parser.add_argument(
    '--print_request',
    action='store_true',
    help='print what would be sent as JSON, and send nothing',
  )
  parser.epilog = f'{parser.epilog}\n{_MORE_OPTIONS}'


def add_status(parser: fields.CommandParser) -> None:
  parser.add_argument('job', help='id of the job')
  parser.add(PLACE)
  parser.add_argument(
    '--follow',
    action='store_true',
    help='show its messages until the job ends',
  )
  parser.epilog = (
    f'{parser.epilog}\n\nexit status: 0 if the job is done or, without '
    '--follow, not yet at its end; 1 if it\nhas failed, was cancelled, drained '
    'or replaced by another one.'
  )


def add_template(parser: fields.CommandParser) -> None:
  parser.add_argument(
    '--image', required=True, help='container image of the launcher'
  )
  parser.add_argument('--out', required=True, help='the file to write')

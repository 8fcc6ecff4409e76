"""The flags of the commands about Dataflow."""

from typing import get_args

from launch.flags import fields, project as project_flags
from pipeline.beam import engines

_MORE_OPTIONS = """
Everything after -- goes to Beam, for instance
  --max_num_workers=100 --machine_type=g2-standard-16 --labels=team=search
  --service_account_email=... --network=... --subnetwork=... --no_use_public_ips
  --dataflow_service_options=worker_accelerator=type:nvidia-tesla-t4;count:1;...
A job has a name, by default made from the index: while it runs, another of the
same index is refused."""


def add_place(parser: fields.CommandParser) -> None:
  """Where a job runs."""
  parser.add_argument('--project', required=True, help='Google Cloud project')
  parser.add_argument('--region', required=True, help='such as us-central1')
  parser.add_argument(
    '--dataflow_endpoint', metavar='URL', help="instead of Google's server"
  )


def add_submit(parser: fields.CommandParser) -> None:
  project_flags.add_job(parser)
  add_place(parser)
  parser.add_argument(
    '--image',
    help='container of the workers, from launch/deploy/Containerfile',
  )
  parser.add_argument(
    '--temp_location', help='gs:// directory for files of the job'
  )
  parser.add_argument(
    '--worker',
    choices=get_args(engines.DataflowWorker),
    default='cpu',
    help='what works: 8 cores, an NVIDIA L4, a TPU v5e (default: %(default)s)',
  )
  parser.add_argument(
    '--right_fitting',
    action='store_true',
    help='with --worker gpu: GPUs for the projection alone, by a resource hint',
  )
  parser.add_argument('--job_name', help='default: made from the index')
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
    help='send a job with nothing to do, too, as launching a template needs',
  )
  parser.add_argument(
    '--print_request',
    action='store_true',
    help='print what would be sent as JSON, and send nothing',
  )
  parser.epilog = f'{parser.epilog}\n{_MORE_OPTIONS}'


def add_status(parser: fields.CommandParser) -> None:
  parser.add_argument('job', help='id of the job')
  add_place(parser)
  parser.add_argument(
    '--follow',
    action='store_true',
    help='tell what happens until the job ends',
  )
  parser.epilog = (
    f'{parser.epilog}\n\nexit status: 0 if the job is done or, without '
    '--follow, not yet at its end; 1 if it\nhas failed, was cancelled, drained '
    'or replaced by another one.'
  )


def add_template(parser: fields.CommandParser) -> None:
  parser.add_argument(
    '--image', required=True, help='container of the launcher'
  )
  parser.add_argument('--out', required=True, help='the file to write')

"""The flags of `influence submit batch` and `submit kubernetes`."""

from launch.flags import common as common_flags, fields


def add_batch(parser: fields.CommandParser) -> None:
  parser.add_argument('--project', required=True, help='Google Cloud project')
  parser.add_argument('--region', required=True, help='such as us-central1')
  _add_job(parser, 'type, such as nvidia-l4')
  parser.add_argument('--network', help='such as global/networks/default')
  parser.add_argument('--subnetwork', help='regions/.../subnetworks/...')
  parser.add_argument(
    '--print_request',
    action='store_true',
    help='print what would be sent as JSON, and send nothing',
  )
  parser.add_argument(
    '--batch_endpoint', metavar='URL', help="instead of Google's server"
  )


def add_kubernetes(parser: fields.CommandParser) -> None:
  _add_job(parser, 'type, such as nvidia-l4 or tpu-v5-lite-podslice')
  parser.add_argument(
    '--topology',
    help='of a TPU slice, such as 2x4, with --num_accelerators of each host',
  )


def _add_job(parser: fields.CommandParser, accelerator: str) -> None:
  parser.add_argument(
    '--image', required=True, help='from launch/deploy/Containerfile'
  )
  parser.add_argument('--job_name', required=True, help='a-z, 0-9 and -')
  parser.add_argument('--machine_type', help='such as g2-standard-8')
  parser.add_argument('--accelerator', help=accelerator)
  common_flags.add_number(parser, '--num_accelerators', 1, 'on each machine')
  common_flags.add_number(
    parser, '--num_hosts', 1, 'machines that work together by --multi_process'
  )
  parser.add_argument(
    '--spot',
    action='store_true',
    help='cheaper machines that may be taken away',
  )
  common_flags.add_number(parser, '--max_hours', 24.0, 'then it is stopped')
  common_flags.add_number(parser, '--num_retries', 3, 'of a task that fails')
  parser.add_argument('--service_account', help='that it runs as')
  parser.add_argument(
    '--label',
    action=fields.NamedValues,
    metavar='NAME=VALUE',
    help='of the job and its machines; may be repeated',
  )
  parser.epilog = (
    f'{parser.epilog}\n\nAfter -- comes the command, as on this machine; it is '
    'checked here before anything is sent.'
  )

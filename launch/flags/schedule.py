"""The flags of `influence reindex` and `schedule`."""

import argparse

from launch.output import exit_status


def add_reindex(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--config',
    required=True,
    help='TOML file, local or gs://: task, basis, index and what else is to do',
  )
  parser.epilog = (
    f'{parser.epilog}\n\nIt fits the basis again where the model changed '
    '(refit_basis), projects what changed,\nverifies, collects garbage and '
    f'announces.\n\nexit status:\n{exit_status.table()}'
  )


def add_schedule(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--config', required=True, help='of `influence reindex`, local or gs://'
  )
  parser.add_argument(
    '--cron',
    required=True,
    dest='cron_times',
    help="when, as in a crontab: '0 3 * * *' is every day at 3",
  )
  parser.add_argument('--out', required=True, help='directory for the files')
  parser.add_argument(
    '--name',
    default='influence-reindex',
    help=(
      'of the schedule, its files and units; another for each schedule of a '
      'machine (default: %(default)s)'
    ),
  )
  cloud = parser.add_argument_group(
    'on Google Cloud',
    'Terraform of Cloud Scheduler and Workflows, and the Cloud Batch job',
  )
  cloud.add_argument('--project', help='write these files, too')
  cloud.add_argument('--region', help='such as us-central1')
  cloud.add_argument('--image', help='from launch/deploy/Containerfile')
  cloud.add_argument('--machine_type', help='such as g2-standard-8')
  cloud.add_argument('--accelerator', help='type, such as nvidia-l4')
  cloud.add_argument(
    '--topic',
    default='',
    help='Pub/Sub topic that is told how a run ended: projects/P/topics/T',
  )
  cloud.add_argument('--time_zone', default='UTC', help='default: %(default)s')

"""The flags of `influence reindex` and `schedule`."""

import argparse

from launch.output import exit_status


def add_reindex(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--config',
    required=True,
    help='TOML file, local or gs://, with task, basis, index and steps',
  )
  parser.epilog = (
    f'{parser.epilog}\n\nIt fits the basis again where the model changed '
    '(refit_basis), projects what changed,\nverifies, collects garbage and '
    f'announces.\n\nexit status:\n{exit_status.table()}'
  )


def add_schedule(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--config',
    required=True,
    help='file of `influence reindex`, local or gs://',
  )
  parser.add_argument(
    '--cron',
    required=True,
    dest='cron_times',
    help="times as in a crontab: '0 3 * * *' is every day at 3",
  )
  parser.add_argument('--out', required=True, help='directory for the files')
  parser.add_argument(
    '--name',
    default='influence-reindex',
    help=(
      'name of the schedule, its files and units; unique on a machine '
      '(default: %(default)s)'
    ),
  )
  cloud = parser.add_argument_group(
    'on Google Cloud',
    'Terraform of Cloud Scheduler and Workflows, and the Cloud Batch job',
  )
  cloud.add_argument(
    '--project', help='Google Cloud project; writes these files, too'
  )
  cloud.add_argument('--region', help='region, such as us-central1')
  cloud.add_argument(
    '--image', help='container image, from launch/deploy/Containerfile'
  )
  cloud.add_argument(
    '--machine_type', help='machine type, such as g2-standard-8'
  )
  cloud.add_argument(
    '--accelerator', help='accelerator type, such as nvidia-l4'
  )
  cloud.add_argument(
    '--topic',
    default='',
    help='Pub/Sub topic for the result of each run: projects/P/topics/T',
  )
  cloud.add_argument(
    '--time_zone', default='UTC', help='of --cron (default: %(default)s)'
  )

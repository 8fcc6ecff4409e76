"""`influence schedule`: reindexing at set times, on one machine or a cloud."""

import json
import re
import shlex
import shutil
import sys
from typing import Any

from influence_core import errors
from launch.cloud import cluster_job
from launch.flags.cluster import BatchPlace, ClusterJob
from launch.output import console as console_lib
from launch.schedule import cron, files as schedule_files
from pipeline.storage import files as storage

# Of files, units, jobs and service accounts.
_NAME = re.compile('[a-z]([-a-z0-9]*[a-z0-9])?')
_MAX_NAME = 63
# A service account is NAME-runner, in up to 30 characters.
_MAX_NAME_IN_CLOUD = 23
_VARIABLES = 'terraform.tfvars.json'


def run(
  console: console_lib.Console,
  *,
  config: str,
  cron_times: str,
  out: str,
  name: str,
  **cloud: Any,
) -> dict[str, Any]:
  """Writes the files of a schedule.

  Raises:
    errors.InputError: A time, a name or a path is wrong, files cannot be
      written, or Terraform's files of another schedule are there.
  """
  calendar = cron.on_calendar(cron_times)
  cron_times = ' '.join(cron_times.split())
  config, out = storage.absolute(config), storage.absolute(out)
  _check(name, out, config=config, in_cloud=bool(cloud['project']))
  program = shutil.which('influence', path=f'{sys.prefix}/bin') or 'influence'
  command = [program, 'reindex', '--config', config]
  files = {
    **schedule_files.crontab(name, cron_times, command, out),
    **schedule_files.units(name, calendar, command, out),
  }
  if cloud['project']:
    files |= _for_the_cloud(config, cron_times, name, **cloud)
  for file, text in files.items():
    with storage.open_for_writing(storage.join(out, file)) as stream:
      stream.write(text.encode())
  install = {
    'crontab': schedule_files.install_crontab(name, out),
    'systemd': schedule_files.install_units(name, out),
  }
  if cloud['project']:
    terraform = f'terraform -chdir={shlex.quote(out)}'
    install['cloud'] = f'{terraform} init && {terraform} apply'
  console.print(f'wrote {", ".join(files)} to {out}')
  console.print('to install, or again after a change, one of:')
  for line in install.values():
    console.print(f'  {line}')
  return {
    'out': out,
    'files': list(files),
    'calendar': calendar,
    'install': install,
  }


def _check(name: str, out: str, *, config: str, in_cloud: bool) -> None:
  longest = _MAX_NAME_IN_CLOUD if in_cloud else _MAX_NAME
  if not _NAME.fullmatch(name) or len(name) > longest:
    raise errors.InputError(
      f'name is {name!r}, expected up to {longest} characters of a-z, 0-9 and '
      '-, from a letter to no -'
    )
  if not storage.is_local(out):
    raise errors.InputError(
      f'out is {out}, expected a directory of this machine, from which the '
      'files are installed'
    )
  for flag, path in (('config', config), ('out', out)):
    if not path.isprintable():
      raise errors.InputError(
        f'{flag} is {path!r}, which no crontab can hold; rename it'
      )
  variables = storage.join(out, _VARIABLES)
  if in_cloud and storage.exists(variables):
    other = _name_in(variables)
    if other != name:
      raise errors.InputError(
        f'{out} holds the Terraform of the schedule {other!r}, which applying '
        f'{name!r} would destroy; choose another --out'
      )


def _name_in(variables: str) -> Any:
  """The schedule of variables for Terraform; None where they are damaged."""
  try:
    return json.loads(storage.read_bytes(variables)).get('name')
  except (ValueError, AttributeError):
    return None


def _for_the_cloud(
  config: str,
  cron_times: str,
  name: str,
  *,
  project: str,
  region: str | None,
  image: str | None,
  machine_type: str | None,
  accelerator: str | None,
  topic: str,
  time_zone: str,
) -> dict[str, str]:
  for flag, value in (('region', region), ('image', image)):
    if not value:
      raise errors.InputError(f'{flag} is missing, which --project asks for')
  job = cluster_job.batch(
    ClusterJob(
      name=name,
      image=str(image),
      command=('reindex', '--config', config),
      machine_type=machine_type,
      accelerator=accelerator,
      service_account=f'{name}-runner@{project}.iam.gserviceaccount.com',
      labels={'schedule': name},
    ),
    BatchPlace(project, str(region)),
  )
  variables = {
    'project': project,
    'region': region,
    'name': name,
    'cron': cron_times,
    'time_zone': time_zone,
    'topic': topic,
    'job': json.dumps(job),
  }
  return {
    **{
      file: (schedule_files.DEPLOY / file).read_text('utf-8')
      for file in ('main.tf', 'workflow.yaml')
    },
    _VARIABLES: json.dumps(variables, indent=2) + '\n',
  }

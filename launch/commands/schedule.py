"""`influence schedule`: reindexing at set times, on one machine or a cloud."""

from collections.abc import Mapping
import importlib.resources
import json
import pathlib
import shlex
import shutil
import sys
from typing import Any

from influence_core import errors
from launch import cluster_job, cron
from launch import console as console_lib
from pipeline import storage

_DEPLOY = importlib.resources.files('launch') / 'deploy'
# With the seconds of its start behind it, a job's name has up to 63 characters.
_MAX_NAME = 23


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
    errors.InputError: A time or a name is wrong, or files cannot be written.
  """
  calendar = cron.on_calendar(cron_times)
  files = _for_one_machine(config, cron_times, calendar, name)
  if cloud['project']:
    files |= _for_the_cloud(config, cron_times, name, **cloud)
  directory = pathlib.Path(storage.absolute(out))
  for file, text in files.items():
    with storage.open_for_writing(str(directory / file)) as stream:
      stream.write(text.encode())
  console.print(f'wrote {", ".join(files)} to {directory}')
  console.print(f'here: crontab {directory}/crontab, or the systemd units')
  if cloud['project']:
    console.print(f'cloud: terraform -chdir={directory} init, then apply')
  return {'out': str(directory), 'files': list(files), 'calendar': calendar}


def _for_one_machine(
  config: str, cron_times: str, calendar: str, name: str
) -> dict[str, str]:
  program = shutil.which('influence', path=f'{sys.prefix}/bin') or 'influence'
  command = shlex.join(
    [program, 'reindex', '--config', storage.absolute(config)]
  )
  values = {'NAME': name, 'COMMAND': command, 'CALENDAR': calendar}
  # In a crontab % stands for the end of a line.
  files = {'crontab': f'{cron_times} {command.replace("%", chr(92) + "%")}\n'}
  for file in ('influence-reindex.service', 'influence-reindex.timer'):
    files[file] = _filled((_DEPLOY / file).read_text('utf-8'), values)
  return files


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
  if len(name) > _MAX_NAME:
    raise errors.InputError(
      f'name is {name!r}, expected up to {_MAX_NAME} characters'
    )
  job = cluster_job.batch(
    cluster_job.ClusterJob(
      name=name,
      image=str(image),
      command=('reindex', '--config', config),
      machine_type=machine_type,
      accelerator=accelerator,
      service_account=f'{name}-runner@{project}.iam.gserviceaccount.com',
      labels={'schedule': name},
    ),
    region=str(region),
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
    'main.tf': (_DEPLOY / 'main.tf').read_text('utf-8'),
    'workflow.yaml': (_DEPLOY / 'workflow.yaml').read_text('utf-8'),
    'terraform.tfvars.json': json.dumps(variables, indent=2) + '\n',
  }


def _filled(text: str, values: Mapping[str, str]) -> str:
  for name, value in values.items():
    text = text.replace(f'@{name}@', value)
  return text

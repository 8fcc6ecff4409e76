"""Schedules: what is written is what crontab, systemd and Google Cloud take."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess

from google.cloud import batch_v1
from google.protobuf import json_format
import hcl2
import pytest

from influence_core import errors
from launch.schedule import cron

CLOUD = ['--project', 'p', '--region', 'us-central1', '--image', 'i']


@pytest.fixture(name='schedule')
def fixture_schedule(influence, tmp_path):
  def run(*more, times='0 3 * * *', config='gs://B/reindex.toml'):
    flags = ['--config', config, '--cron', times, '--out', tmp_path / 'out']
    return influence('schedule', *flags, *more)

  return run


@pytest.mark.parametrize(
  ('times', 'calendar'),
  [
    ('0 3 * * *', '*-*-* 03:00:00'),
    ('*/15 3-5 * * 1,5', 'Mon,Fri *-*-* 03,04,05:00,15,30,45:00'),
    ('5 4 1 */6 *', '*-01,07-01 04:05:00'),
    ('0 0 * * 7', 'Sun *-*-* 00:00:00'),
    ('30 10/6 * * *', '*-*-* 10,16,22:30:00'),
  ],
)
def test_times_in_the_words_of_systemd(times, calendar):
  assert cron.on_calendar(times) == calendar
  if shutil.which('systemd-analyze'):
    subprocess.run(
      ['systemd-analyze', 'calendar', calendar], check=True, capture_output=True
    )


@pytest.mark.parametrize(
  ('times', 'message'),
  [
    ('0 3 * *', 'expected five fields'),
    ('60 3 * * *', "minute '60', expected numbers from 0 to 59"),
    ('0 3 * * Mon', "weekday 'Mon'"),
    ('0 5-3 * * *', "hour '5-3'"),
    ('*/0 3 * * *', "minute '\\*/0'"),
    ('0 3 1 * 1', 'either day and weekday'),
  ],
)
def test_times_that_are_none(times, message):
  with pytest.raises(errors.InputError, match=message):
    cron.on_calendar(times)


def words_of_systemd(line):
  """Words of ExecStart as systemd reads them.

  By systemd.syntax(7) and systemd.service(5), as far as words are all in
  double quotes; a lone $ or % would be a variable or a specifier.
  """
  words = re.findall(r'"((?:\\.|[^"\\])*)"', line)
  assert ' '.join(f'"{word}"' for word in words) == line

  def literal(word, specials):
    word = re.sub(r'\\(["\\])', r'\1', word)
    for special in specials:
      assert special not in word.replace(2 * special, '')
      word = word.replace(2 * special, special)
    return word

  program, *arguments = words
  return [literal(program, '%'), *(literal(x, '%$') for x in arguments)]


def unit(path):
  found = configparser.ConfigParser(interpolation=None)
  found.optionxform = str
  found.read(path)
  return found


CONFIGS = ('gs://B/reindex.toml', '/d/100% "mine" $HOME \'s \\n ;.toml')


@pytest.mark.parametrize('config', CONFIGS)
def test_one_machine(schedule, tmp_path, config):
  done = schedule('--json', config=config)
  assert done.status == 0, done.stderr
  out = tmp_path / 'out'
  assert not (out / 'main.tf').exists()
  line = (out / 'influence-reindex.crontab').read_text().splitlines()[-1]
  times, command = line.split(' ')[:5], ' '.join(line.split(' ')[5:])
  assert times == ['0', '3', '*', '*', '*']
  assert not re.search(r'(?<!\\)%', command)
  told = shlex.split(command.replace('\\%', '%'), comments=True)
  assert told[1:] == ['reindex', '--config', config]
  service = unit(out / 'influence-reindex.service')['Service']
  assert words_of_systemd(service['ExecStart']) == told
  assert service['SuccessExitStatus'] == '3'
  timer = unit(out / 'influence-reindex.timer')['Timer']
  assert timer['OnCalendar'] == '*-*-* 03:00:00'
  assert timer['Unit'] == 'influence-reindex.service'
  for kind in ('service', 'timer'):
    assert not re.search(
      '@[A-Z]', (out / f'{timer["Unit"][:-8]}.{kind}').read_text()
    )


@pytest.mark.skipif(
  not shutil.which('systemd-analyze'), reason='needs systemd-analyze'
)
@pytest.mark.parametrize('config', CONFIGS)
def test_units_are_what_systemd_takes(schedule, tmp_path, config):
  assert schedule('--name', 'fast', config=config).status == 0
  checked = subprocess.run(
    ['systemd-analyze', 'verify', '--man=no', tmp_path / 'out' / 'fast.timer'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert 'fast' not in checked.stderr, checked.stderr


def test_schedules_share_a_directory(schedule, tmp_path):
  for name in ('hourly', 'daily'):
    assert schedule('--name', name).status == 0
  assert sorted(x.name for x in (tmp_path / 'out').iterdir()) == [
    f'{name}.{kind}'
    for name in ('daily', 'hourly')
    for kind in ('crontab', 'service', 'timer')
  ]
  timer = tmp_path / 'out' / 'hourly.timer'
  assert unit(timer)['Timer']['Unit'] == 'hourly.service'
  # Terraform would destroy one for the other.
  assert schedule(*CLOUD, '--name', 'daily').status == 0
  assert schedule(*CLOUD, '--name', 'daily').status == 0
  line = schedule(*CLOUD, '--name', 'hourly').error_line
  assert "out holds the Terraform of the schedule 'daily'" in line


FAKE_CRONTAB = """#!/bin/sh
case "$1" in
  -l) cat "$CRONTAB_KEPT" 2>/dev/null || { echo none >&2; exit 1; } ;;
  *) cat "$1" > "$CRONTAB_KEPT.new" && mv "$CRONTAB_KEPT.new" "$CRONTAB_KEPT" ;;
esac
"""


@pytest.fixture(name='install_crontab')
def fixture_install_crontab(tmp_path):
  """Runs what is printed; returns the crontab afterwards."""
  program = tmp_path / 'bin' / 'crontab'
  program.parent.mkdir()
  program.write_text(FAKE_CRONTAB)
  program.chmod(0o755)

  def run(printed):
    (line,) = [x for x in printed.splitlines() if 'crontab' in x and '|' in x]
    subprocess.run(
      ['sh', '-c', line],
      check=True,
      env={
        'PATH': f'{program.parent}:{os.environ["PATH"]}',
        'CRONTAB_KEPT': str(tmp_path / 'kept'),
      },
    )
    return (tmp_path / 'kept').read_text().splitlines()

  return run


def test_crontab_of_others_survives(schedule, install_crontab, tmp_path):
  others = ['# mine', '5 4 * * * backup "100\\%"', '@daily influence-reindex']
  (tmp_path / 'kept').write_text('\n'.join(others) + '\n')
  for _ in range(2):
    *kept, line = install_crontab(schedule().stdout)
    assert kept == others
  first = line
  assert install_crontab(schedule('--name', 'reindex').stdout)[:-1] == [
    *others,
    first,
  ]
  # A change takes the place of the line before.
  found = install_crontab(schedule(times='30 5 * * 1').stdout)
  assert found[:3] == others
  assert len(found) == 5
  assert found[-1].startswith('30 5 * * 1 ')


def test_first_crontab_of_all(schedule, install_crontab, tmp_path):
  done = schedule('--out', tmp_path / "it's mine", times='0\n3 * * *')
  (line,) = install_crontab(done.stdout)
  assert line.startswith('0 3 * * * ')
  assert install_crontab(done.stdout) == [line]
  # Nor does the file tell anybody to replace the whole crontab.
  file = tmp_path / "it's mine" / 'influence-reindex.crontab'
  *header, last = file.read_text().splitlines()
  assert last == line
  assert all(x.startswith('#') for x in header)
  assert install_crontab('\n'.join(x[1:] for x in header)) == [line]


def test_terraform_is_whole(schedule, tmp_path):
  done = schedule(*CLOUD, '--machine_type', 'g2-standard-8')
  assert done.status == 0, done.stderr
  out = tmp_path / 'out'
  text = (out / 'main.tf').read_text()
  with open(out / 'main.tf') as file:
    content = hcl2.load(file)
  declared = {name.strip('"') for x in content['variable'] for name in x}
  assert set(re.findall(r'var\.(\w+)', text)) == declared
  given = json.loads((out / 'terraform.tfvars.json').read_text())
  assert given.keys() <= declared
  with_default = {
    name.strip('"')
    for variable in content['variable']
    for name, about in variable.items()
    if 'default' in about
  }
  assert declared - with_default <= given.keys()
  resources = {
    f'{kind}.{name}'.replace('"', '')
    for resource in content['resource']
    for kind, named in resource.items()
    for name in named
    if not name.startswith('__')
  }
  used = set(re.findall(r'\b(google_\w+\.\w+)\.', text))
  assert used <= resources
  # The scheduler gives the workflow all that it reads.
  workflow = (out / 'workflow.yaml').read_text()
  passed = set(re.findall(r'^\s+(\w+)\s+= (?:var|jsondecode)', text, re.M))
  assert set(re.findall(r'args\.(\w+)', workflow)) <= passed
  assert {
    *('roles/artifactregistry.reader', 'roles/batch.agentReporter'),
    *('roles/batch.jobsEditor', 'roles/iam.serviceAccountUser'),
    *('roles/logging.logWriter', 'roles/pubsub.publisher'),
    *('roles/storage.objectUser', 'roles/workflows.invoker'),
  } == set(re.findall('roles/[a-zA-Z.]+', text))
  message = batch_v1.Job.pb(batch_v1.Job())
  job = json_format.ParseDict(json.loads(given['job']), message)
  command = job.task_groups[0].task_spec.runnables[0].container.commands
  assert list(command) == ['reindex', '--config', 'gs://B/reindex.toml']
  assert job.allocation_policy.service_account.email.startswith(
    f'{given["name"]}-runner@'
  )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--project', 'p'], 'region is missing'),
    ([*CLOUD[:4]], 'image is missing'),
    ([*CLOUD, '--name', 'x' * 24], 'expected up to 23 characters'),
    (['--name', 'x' * 64], 'expected up to 63 characters'),
    (['--name', 'My schedule'], "name is 'My schedule', expected up to"),
    (['--name', '../x'], "name is '../x'"),
    (['--name', 'x-'], "name is 'x-'"),
    (['--out', 'gs://B/schedule'], 'expected a directory of this machine'),
    (['--config', 'a\nb'], 'which no crontab can hold'),
  ],
)
def test_mistakes_are_told(schedule, flags, message):
  assert message in schedule(*flags).error_line


def test_configuration_for_the_cloud_is_in_the_cloud(schedule):
  line = schedule(*CLOUD, config='/local.toml').error_line
  assert 'config is /local.toml, which other machines cannot reach' in line

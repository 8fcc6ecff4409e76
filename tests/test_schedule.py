"""Schedules: what is written is what crontab, systemd and Google Cloud take."""

import base64
import configparser
import json
import re
import shlex
import shutil
import subprocess

from google.cloud import batch_v1
from google.protobuf import json_format
import hcl2
import pytest
import yaml

from influence_core import errors
from launch import cron
from tests import workflow_interpreter
from tests.conftest import ROOT

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


def test_one_machine(schedule, tmp_path):
  config = str(tmp_path / '100% mine.toml')
  assert schedule(config=config).status == 0
  out = tmp_path / 'out'
  assert not (out / 'main.tf').exists()
  line = (out / 'crontab').read_text().strip()
  times, command = line.split(' ')[:5], ' '.join(line.split(' ')[5:])
  assert times == ['0', '3', '*', '*', '*']
  assert shlex.split(command.replace('\\%', '%'))[1:] == [
    *('reindex', '--config', config)
  ]
  units = {}
  for name in ('influence-reindex.service', 'influence-reindex.timer'):
    units[name] = configparser.ConfigParser(interpolation=None)
    units[name].optionxform = str
    units[name].read(out / name)
    assert '@' not in (out / name).read_text()
  service = units['influence-reindex.service']['Service']
  assert shlex.split(service['ExecStart'].replace('%%', '%'))[-1] == config
  assert service['SuccessExitStatus'] == '3'
  timer = units['influence-reindex.timer']['Timer']
  assert timer['OnCalendar'] == '*-*-* 03:00:00'
  if shutil.which('systemd-analyze'):
    checked = subprocess.run(
      [
        'systemd-analyze',
        'verify',
        '--man=no',
        *sorted(map(str, out.glob('*.timer'))),
      ],
      capture_output=True,
      text=True,
      check=False,
    )
    assert 'influence-reindex' not in checked.stderr, checked.stderr


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
  ],
)
def test_mistakes_are_told(schedule, flags, message):
  assert message in schedule(*flags).error_line


def test_configuration_for_the_cloud_is_in_the_cloud(schedule):
  line = schedule(*CLOUD, config='/local.toml').error_line
  assert 'config is /local.toml, which other machines cannot reach' in line


class Cloud:
  """Cloud Batch and Pub/Sub, as far as the workflow sees them.

  Attributes:
    states: of the job, one for each look at it.
    before: state of the newest job before; None for none.
    launched: names of jobs.
    told: announcements.
  """

  def __init__(self, states, before=None):
    self.states = list(states)
    self.before = before
    self.launched = []
    self.told = []

  def http(self, method, args):
    assert args['auth'] == {'type': 'OAuth2'}
    url = args['url']
    if url.endswith(':publish'):
      self.told += args['body']['messages']
      return {}
    jobs = 'https://batch.googleapis.com/v1/projects/p/locations/r/jobs'
    if method == 'post':
      assert url == jobs
      assert args['body'] == {'taskGroups': []}
      self.launched.append(args['query']['job_id'])
      return {'name': f'projects/p/locations/r/jobs/{self.launched[-1]}'}
    if url == jobs:
      assert args['query']['filter'] == 'labels.schedule=n'
      if self.before is None:
        return {}
      return {'jobs': [{'name': 'old', 'status': {'state': self.before}}]}
    name = url.removeprefix('https://batch.googleapis.com/v1/')
    return {'name': name, 'status': {'state': self.states.pop(0)}}

  def run(self, topic=''):
    workflow = yaml.safe_load(
      (ROOT / 'launch/deploy/workflow.yaml').read_text()
    )
    arguments = {'project': 'p', 'region': 'r', 'name': 'n', 'topic': topic}
    arguments |= {'job': {'taskGroups': []}, 'poll_seconds': 60}
    return workflow_interpreter.run(workflow, arguments, self.http, now=12.5)


@pytest.mark.parametrize('before', [None, 'SUCCEEDED', 'FAILED'])
def test_workflow_launches_waits_and_announces(before):
  cloud = Cloud(['QUEUED', 'SCHEDULED', 'RUNNING', 'SUCCEEDED'], before)
  assert cloud.run(topic='projects/p/topics/t').endswith('/jobs/n-12')
  assert cloud.launched == ['n-12']
  assert cloud.states == []
  (message,) = cloud.told
  assert message['attributes'] == {'schedule': 'n', 'state': 'SUCCEEDED'}
  told = json.loads(base64.b64decode(message['data']))
  assert told['status']['state'] == 'SUCCEEDED'


@pytest.mark.parametrize('state', ['QUEUED', 'SCHEDULED', 'RUNNING'])
def test_workflow_refuses_overlap(state):
  cloud = Cloud([], before=state)
  with pytest.raises(workflow_interpreter.WorkflowError, match='is at work'):
    cloud.run()
  assert cloud.launched == []


def test_workflow_fails_with_its_job():
  cloud = Cloud(['RUNNING', 'FAILED'])
  with pytest.raises(
    workflow_interpreter.WorkflowError, match='n-12 ended as FAILED'
  ):
    cloud.run(topic='projects/p/topics/t')
  assert cloud.told[0]['attributes']['state'] == 'FAILED'
  with pytest.raises(workflow_interpreter.WorkflowError):
    Cloud(['FAILED']).run()

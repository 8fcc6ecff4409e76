"""From a laptop to a Dataflow job and back, against stand-ins on loopback."""

import json
import shlex

import pytest

from influence_core import errors
from launch.cloud import dataflow_job, flex_template
from launch.commands import status
from launch.flags import (
  common as common_flags,
  dataflow as dataflow_flags,
  fields,
  parser,
)
from pipeline.beam import engines
from pipeline.index import reader as index_reader
from pipeline.storage import files as storage
from tests.conftest import ROOT
from tests.kit import documentation, linear_task
from tests.pipeline.storage.test_object_store import url
from tests.pipeline.storage.test_remote_files import upload

dataflow_api = pytest.importorskip(
  'tests.kit.dataflow_api', reason="needs the extra 'dataflow'"
)

PLACE = ['--project', 'my-project', '--region', 'us-central1']
IMAGE = 'us-docker.pkg.dev/my-project/influence/influence:1'


@pytest.fixture(name='api')
def fixture_api(store, monkeypatch):
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', store.endpoint)
  monkeypatch.setattr(status, '_POLL_SECONDS', 0.1)
  api = dataflow_api.DataflowApi()
  yield api
  api.close()


@pytest.fixture(name='command')
def fixture_command(api, workdir, basis):
  """Task, corpus and basis in the store; flags of a submission."""
  for part in ('data', 'checkpoint', 'basis'):
    upload(workdir / part, f'w/{part}')
  return [
    *('submit', 'dataflow', *PLACE, '--dataflow_endpoint', api.endpoint),
    *('--image', IMAGE, '--temp_location', url('tmp')),
    *('--task', 'tests.kit.linear_task:make_task'),
    *('--task_arg', f'workdir={url("w")}', '--range_size', 40),
    *('--basis', url('w/basis'), '--index', url('index')),
  ]


def follow(influence, api, job_id, *more):
  return influence(
    *('status', job_id, *PLACE, '--dataflow_endpoint', api.endpoint),
    *('--follow', *more),
  )


@pytest.mark.slow
def test_from_laptop_to_published_index(influence, api, command):
  sent = influence(*command, '--json')
  assert sent.status == 0, sent.stderr
  done = follow(influence, api, sent.json['job_id'], '--json')
  assert done.json['state'] == 'JOB_STATE_DONE', done.stderr
  assert done.json['counters'] == {
    'ranges': 9,
    'examples_written': linear_task.NUM_TRAIN,
    'examples_rejected': 0,
  }
  assert 'BASIC started' in follow(influence, api, sent.json['job_id']).stderr
  index = index_reader.Index(url('index'))
  assert index.num_examples == linear_task.NUM_TRAIN
  # Nothing is sent when nothing is to do, unless a template needs a job.
  assert influence(*command, '--json').json['job_id'] is None
  again = influence(*command, '--even_if_done', '--json').json['job_id']
  assert follow(influence, api, again).status == 0
  assert index_reader.Index(url('index')).generation == 1


@pytest.mark.slow
def test_three_commands_of_the_readme(influence, api, workdir):
  """From a laptop to a running job, as a newcomer types them."""
  for part in ('data', 'checkpoint'):
    upload(workdir / part, f'w/{part}')
  readme = documentation.text()
  block = readme.partition('## On Dataflow')[2].split('```')[1]
  lines = block.strip().splitlines()
  assert [line.split()[1] for line in lines] == [
    'fit-basis',
    'submit',
    'status',
  ]
  typed = {
    'P': ['my-project'],
    'I': [IMAGE],
    '$TASK': [
      *('--task', 'tests.kit.linear_task:make_task'),
      *('--task_arg', f'workdir={url("w")}'),
    ],
  }
  for line in lines:
    words = shlex.split(line.replace('gs://B/', url('')))[1:]
    words = [x for word in words for x in typed.get(word, [word])]
    if words[0] == 'fit-basis':
      words += ['--projection_dim', '6']  # The task has no more directions.
    else:
      words += ['--dataflow_endpoint', api.endpoint]
    done = influence(*words, '--json')
    assert done.status == 0, done.stderr
    typed['JOB'] = [done.json.get('job_id')]
  assert done.json['state'] == 'JOB_STATE_DONE'
  index = index_reader.Index(url('index'))
  assert index.num_examples == linear_task.NUM_TRAIN


@pytest.mark.slow
def test_job_of_the_same_index_is_refused(influence, api, command):
  api.is_held = True
  assert influence(*command).status == 0
  line = influence(*command).error_line
  assert 'already active job named influence-index-' in line
  assert 'choose another --job_name' in line
  other = influence(*command, '--job_name', 'other')
  assert other.status == 0, other.stderr


@pytest.mark.slow
def test_failed_job_is_told(influence, api, command):
  api.is_held = True
  sent = influence(*command, '--json', '--job_name', 'fails')
  storage.remove_directory(url('w/basis'))
  api.is_held = False
  failed = follow(influence, api, sent.json['job_id'])
  assert 'job fails (2026-' in failed.error_line
  assert 'no basis at gs://' in failed.error_line


@pytest.mark.slow
def test_request_is_what_is_sent(influence, api, command):
  """But for the place of staged files, which is new every time."""
  shown = influence(*command, '--print_request', '--json').json['request']
  assert not api.jobs
  assert not storage.exists(url('tmp'))
  assert not storage.exists(url('index'))
  influence(*command)
  (sent,) = (job.content for job in api.jobs.values())
  assert comparable(dataflow_api.named(shown)) == comparable(sent)


def comparable(job):
  options = job['environment']['sdkPipelineOptions']['options']
  own = {'pipelineUrl', 'artifact_port', 'job_port', 'template_location'}
  return {
    'name': job['name'],
    'type': job['type'],
    'steps': job.get('steps'),
    'workers': [
      {k: v for k, v in pool.items() if k != 'packages'}
      for pool in job['environment']['workerPools']
    ],
    'experiments': sorted(job['environment']['experiments']),
    'options': options.keys() - own,
  }


@pytest.mark.slow
def test_job_is_as_it_should_be(influence, api, command):
  labels = ['--labels=team=search', '--service_account_email=a@b']
  labels += ['--subnetwork=regions/us-central1/subnetworks/s']
  influence(*command, '--worker', 'gpu', '--', *labels, '--no_use_public_ips')
  (job,) = (job.content for job in api.jobs.values())
  environment = job['environment']
  assert job['labels'] == {'team': 'search'}
  assert environment['serviceAccountEmail'] == 'a@b'
  assert environment['serviceOptions'] == [
    f'worker_accelerator={engines.ACCELERATORS["dataflow-gpu"]}'
  ]
  assert 'no_use_multiple_sdk_containers' in environment['experiments']
  (pool,) = environment['workerPools']
  assert pool['machineType'] == 'g2-standard-8'
  assert pool['ipConfiguration'] == 'WORKER_IP_PRIVATE'
  assert pool['subnetwork'] == 'regions/us-central1/subnetworks/s'
  assert [x['containerImage'] for x in pool['sdkHarnessContainerImages']] == [
    IMAGE
  ]
  options = environment['sdkPipelineOptions']['options']
  assert options['number_of_worker_harness_threads'] == 2
  assert not options.get('save_main_session')
  transforms = chain(dataflow_api.staged_pipeline(job))
  assert [x for x in transforms if x in STEPS] == STEPS


STEPS = ['Ranges', 'Spread', 'Project', 'Gather', 'Publish']


def chain(pipeline):
  """Names of the outermost transforms."""
  (root,) = pipeline.root_transform_ids
  transforms = pipeline.components.transforms
  return [
    transforms[name].unique_name for name in transforms[root].subtransforms
  ]


@pytest.mark.slow
def test_right_fitting_gives_accelerators_to_the_projection(
  influence, api, command
):
  influence(*command, '--worker', 'gpu', '--right_fitting')
  (job,) = (job.content for job in api.jobs.values())
  # A hint turns it on; an accelerator of all workers excludes it.
  assert not job['environment'].get('serviceOptions')
  (pool,) = job['environment']['workerPools']
  assert pool['machineType'] == 'n2-standard-8'
  components = dataflow_api.staged_pipeline(job).components
  hinted = {
    transform.unique_name.split('/')[0]
    for transform in components.transforms.values()
    if transform.environment_id
    and any(
      b'type:nvidia-l4;count:1;machine_type:g2-standard-8' in value
      for value in components.environments[
        transform.environment_id
      ].resource_hints.values()
    )
  }
  assert hinted == {'Project'}


@pytest.mark.slow
def test_template_is_launched_and_its_launcher_sends_the_job(
  influence, api, command
):
  done = influence(
    'dataflow-template', '--image', IMAGE, '--out', url('t.json')
  )
  assert done.status == 0, done.stderr
  more = ['--worker', 'tpu', '--template', url('t.json')]
  beam = ['--', '--max_num_workers=5', '--labels=a=b']
  shown = influence(*command, *more, '--print_request', '--json', *beam)
  sent = influence(*command, *more, '--json', *beam)
  assert sent.status == 0, sent.stderr
  (launched,) = api.launched
  assert shown.json['request']['launchParameter'] == launched
  known = json.loads(storage.read_bytes(url('t.json')))['metadata']
  by_name = {x['name']: x for x in known['parameters']}
  assert launched['parameters'].keys() <= by_name.keys()
  required = {x for x, about in by_name.items() if not about['isOptional']}
  assert required <= launched['parameters'].keys()
  # What Dataflow does then: it calls the launcher in the container.
  argv = [f'--{k}={v}' for k, v in launched['parameters'].items()]
  argv += ['--runner=DataflowRunner', '--project=my-project', '--job_name=n']
  argv += ['--region=us-central1', f'--temp_location={url("tmp")}']
  line = flex_template.command_line(argv)
  separator = line.index('--')
  endpoint = ['--dataflow_endpoint', api.endpoint]
  ran = influence(*line[:separator], *endpoint, '--json', *line[separator:])
  assert ran.status == 0, ran.stderr
  content = api.jobs[ran.json['job_id']].content
  (pool,) = content['environment']['workerPools']
  assert pool['machineType'] == 'ct5lp-hightpu-1t'
  assert pool['autoscalingSettings']['maxNumWorkers'] == 5
  assert content['labels'] == {'a': 'b'}
  assert follow(influence, api, ran.json['job_id']).status == 0


def test_parameters_are_the_flags():
  command = fields.CommandParser()
  dataflow_flags.add_submit(command)
  flags = {action.dest for action in command._actions}
  flags -= set(flex_template._OF_LAUNCHING)
  found = {x['name'] for x in flex_template.parameters()}
  assert found == flags - {'task_arg'} | {'task_args', 'beam_arguments'}


def test_launcher_gets_what_was_typed():
  typed = ['submit', 'dataflow', '--task', 'a:b', '--task_arg', 'x=1']
  typed += ['--basis', 'gs://b/b', '--index', 'gs://b/i', '--batch_size', '8']
  typed += ['--max_rejected_fraction', '0', '--memory_budget', '2G']
  typed += ['--vector_dtype', 'int8', '--worker', 'gpu', '--right_fitting']
  place = ['--project', 'p', '--region', 'r', '--temp_location', 'gs://b/t']
  more = ['--image', 'i', '--job_name', 'n', '--', '--labels=a=b']
  _, values = parser.parse([*typed, *place, *more])
  launched = flex_template.launch_parameter(
    values['job'], 'gs://b/t.json', values['request']
  )
  argv = [f'--{k}={v}' for k, v in launched['parameters'].items()]
  argv += ['--project=p', '--region=r', '--temp_location=gs://b/t']
  _, again = parser.parse(flex_template.command_line([*argv, '--job_name=n']))
  assert again['request'] == values['request']
  assert again['job'] == values['job']


def test_launcher_takes_every_kind_of_parameter():
  line = flex_template.command_line(
    [
      '--task=a:b',
      '--task_args=x=1,y=2',
      '--right_fitting=true',
      '--beam_arguments=--labels=a=b --no_use_public_ips',
      '--staging_location=gs://b/s',
      '--runner=DataflowRunner',
    ]
  )
  assert shlex.join(line) == (
    'submit dataflow --even_if_done --task=a:b --task_arg x=1 --task_arg y=2 '
    '--right_fitting -- --labels=a=b --no_use_public_ips '
    '--staging_location=gs://b/s'
  )
  with pytest.raises(errors.InputError, match='of the form --name=value'):
    flex_template.command_line(['task'])
  with pytest.raises(errors.InputError, match='takes no comma'):
    flex_template.join_arguments({'x': 'a,b'})


@pytest.mark.slow
@pytest.mark.parametrize(
  ('instead', 'message'),
  [
    ({'--index': '/local'}, 'index is /local, which workers elsewhere cannot'),
    ({'--temp_location': '/tmp'}, "temp_location is '/tmp', expected a gs://"),
    ({'--job_name': 'Big_Name'}, "job_name is 'Big_Name', expected up to 63"),
    ({'--image': ''}, 'build launch/deploy/Containerfile and pass --image'),
    ({'--basis': 'gs://bucket/absent'}, 'no basis at gs://bucket/absent'),
  ],
)
def test_mistakes_are_told_before_work(influence, api, instead, message):
  flags = {
    '--image': IMAGE,
    '--temp_location': url('tmp'),
    '--task': 'tests.kit.linear_task:make_task',
    '--task_arg': f'workdir={url("w")}',
    '--basis': url('w/basis'),
    '--index': url('index'),
  }
  pairs = [x for pair in {**flags, **instead}.items() for x in pair]
  found = influence('submit', 'dataflow', *PLACE, *pairs)
  assert message in found.error_line
  assert not api.jobs


@pytest.mark.slow
@pytest.mark.parametrize('worker', ['cpu', 'tpu'])
def test_right_fitting_is_for_gpus(influence, api, command, worker):
  found = influence(*command, '--worker', worker, '--right_fitting')
  assert f'is for worker gpu, not {worker}' in found.error_line
  assert not api.jobs


def test_service_that_refuses_is_told(influence, api):
  missing = influence(
    'status', 'absent', *PLACE, '--dataflow_endpoint', api.endpoint
  )
  assert 'Dataflow answers 404: ' in missing.error_line
  api.forbidden = True
  refused = influence(
    'status', 'absent', *PLACE, '--dataflow_endpoint', api.endpoint
  )
  assert 'Dataflow answers 403: ' in refused.error_line
  nowhere = ['--dataflow_endpoint', 'http://localhost:1']
  line = influence('status', 'absent', *PLACE, *nowhere).error_line
  assert 'Dataflow cannot be reached' in line


def test_job_names_are_made_of_any_index():
  for index in ('gs://b/My Index_2/', 'gs://b/x', 'gs://b/' + 'long' * 40):
    name = dataflow_job.default_name(index)
    common_flags.check_job_name(name)
  assert ROOT.joinpath('launch/deploy').exists()

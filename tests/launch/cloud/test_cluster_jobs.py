"""Jobs of Cloud Batch and Kubernetes, held against their published schemas."""

from http import server
import json

from google.cloud import batch_v1
from google.protobuf import json_format
import kubernetes_validate
import pytest
import yaml

from launch.output.exit_status import ExitStatus
from launch.running import processes
from tests.kit.object_store import LoopbackServer

PLACE = ['--project', 'p', '--region', 'us-central1']
FIT = ['fit-basis', '--task', 'a:b', '--out', 'gs://B/basis']
JOB = ['--image', 'i', '--job_name', 'fit']
HOSTS = ['--num_hosts', 4, '--accelerator', 'nvidia-l4', '--spot']


def batch_job(influence, *flags, command=FIT):
  """What would be sent, as Cloud Batch itself reads it: no field unknown."""
  shown = influence(
    *('submit', 'batch', *PLACE, *JOB, *flags),
    *('--print_request', '--json', '--', *command),
  )
  assert shown.status == 0, shown.stderr
  message = batch_v1.Job.pb(batch_v1.Job())
  return batch_v1.Job(json_format.ParseDict(shown.json['request'], message))


def test_batch_job_on_one_machine(influence):
  job = batch_job(
    influence,
    *('--machine_type', 'g2-standard-8', '--accelerator', 'nvidia-l4'),
    *('--service_account', 'a@b', '--label', 'team=x', '--max_hours', 2),
    *('--subnetwork', 'regions/us-central1/subnetworks/s'),
  )
  (group,) = job.task_groups
  assert (group.task_count, group.parallelism) == (1, 1)
  assert not group.require_hosts_file
  container = group.task_spec.runnables[0].container
  assert container.entrypoint == 'influence'
  assert list(container.commands) == FIT
  assert group.task_spec.max_run_duration.total_seconds() == 7200
  (instances,) = job.allocation_policy.instances
  assert instances.install_gpu_drivers
  assert instances.policy.machine_type == 'g2-standard-8'
  assert instances.policy.accelerators[0].type_ == 'nvidia-l4'
  # A container with CUDA, and what is copied from the store, need room.
  assert instances.policy.boot_disk.size_gb == 100
  assert job.allocation_policy.service_account.email == 'a@b'
  (interface,) = job.allocation_policy.network.network_interfaces
  assert interface.subnetwork == 'regions/us-central1/subnetworks/s'
  assert dict(job.labels) == {'team': 'x'}


def test_batch_job_on_several_machines(influence):
  job = batch_job(influence, *HOSTS, command=[*FIT, '--multi_process'])
  (group,) = job.task_groups
  assert (group.task_count, group.parallelism) == (4, 4)
  assert group.task_count_per_node == 1
  assert group.require_hosts_file
  container = group.task_spec.runnables[0].container
  assert container.options == '--network host'
  hosts = processes.BATCH_HOSTS_FILE
  assert list(container.volumes) == [f'{hosts}:{hosts}:ro']
  policy = job.allocation_policy.instances[0].policy
  spot = batch_v1.AllocationPolicy.ProvisioningModel.SPOT
  assert policy.provisioning_model == spot


@pytest.mark.parametrize(
  ('machine_type', 'has_gpus'),
  [
    ('g2-standard-8', True),
    ('a2-highgpu-1g', True),
    ('a3-highgpu-8g', True),
    ('a4x-highgpu-4g', True),
    ('n2-standard-8', False),
    ('c3-standard-8', False),
  ],
)
def test_drivers_are_installed_on_machines_with_gpus(
  influence, machine_type, has_gpus
):
  """Also where the machine type alone says that there are some."""
  job = batch_job(influence, '--machine_type', machine_type)
  (instances,) = job.allocation_policy.instances
  assert instances.install_gpu_drivers == has_gpus


def test_kubernetes_manifests(influence):
  shown = influence(
    *('submit', 'kubernetes', *JOB, '--num_hosts', 2, '--topology', '2x4'),
    *('--accelerator', 'tpu-v5-lite-podslice', '--num_accelerators', 4),
    *('--', *FIT, '--multi_process'),
  )
  assert shown.status == 0, shown.stderr
  job, service = yaml.safe_load_all(shown.stdout)
  for manifest in (job, service):
    kubernetes_validate.validate(manifest, '1.30', strict=True)
  assert job['spec']['completionMode'] == 'Indexed'
  assert job['spec']['completions'] == job['spec']['parallelism'] == 2
  pod = job['spec']['template']['spec']
  (container,) = pod['containers']
  assert container['resources']['limits'] == {'google.com/tpu': '4'}
  # As GKE labels its nodes; a pod that asks for others stays pending.
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
    'cloud.google.com/gke-tpu-topology': '2x4',
  }
  names = {x['name']: x for x in container['env']}
  assert names['JAX_NUM_PROCESSES']['value'] == '2'
  # Pods of an indexed job are NAME-INDEX, below the service of their subdomain.
  coordinator = names['JAX_COORDINATOR_ADDRESS']['value']
  assert coordinator == f'fit-0.{service["metadata"]["name"]}:8476'
  assert pod['subdomain'] == service['metadata']['name']
  labels = job['spec']['template']['metadata']['labels']
  assert service['spec']['selector'].items() <= labels.items()


def test_kubernetes_job_on_one_host(influence):
  shown = influence(
    *('submit', 'kubernetes', *JOB, '--accelerator', 'nvidia-l4', '--spot'),
    *('--machine_type', 'g2-standard-8', '--json', '--', *FIT),
  )
  (job,) = shown.json['manifests']
  kubernetes_validate.validate(job, '1.30', strict=True)
  pod = job['spec']['template']['spec']
  assert pod['nodeSelector'] == {
    'node.kubernetes.io/instance-type': 'g2-standard-8',
    'cloud.google.com/gke-spot': 'true',
    'cloud.google.com/gke-accelerator': 'nvidia-l4',
  }
  assert pod['containers'][0]['resources']['limits'] == {'nvidia.com/gpu': '1'}


@pytest.mark.parametrize(
  ('flags', 'command', 'message'),
  [
    ([], ['fit-basiss'], 'the command is fit-basiss; expected after -- one of'),
    ([], [], 'the command is missing'),
    ([], [*FIT, '--projection_dimm', '3'], 'did you mean --projection_dim?'),
    ([], [*FIT[:-1], '/local'], 'out is /local, which other machines cannot'),
    (['--num_hosts', 2], FIT, 'fit-basis has no --multi_process'),
    (['--num_hosts', 0], FIT, 'num_hosts is 0, expected at least 1'),
    (['--job_name', 'Fit'], FIT, "job_name is 'Fit'"),
    (['--max_hours', 0], FIT, 'max_hours is 0.0'),
    (['--label', 'x'], FIT, "--label is 'x', expected NAME=VALUE"),
  ],
)
def test_mistakes_are_told(influence, flags, command, message):
  for target in (['batch', *PLACE], ['kubernetes']):
    line = influence('submit', *target, *JOB, *flags, '--', *command).error_line
    assert message in line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--accelerator', 'tpu-v6e-slice'], 'Cloud Batch has GPUs only'),
    (['--num_retries', 11], 'num_retries is 11, expected up to 10'),
  ],
)
def test_what_cloud_batch_has_not_is_told(influence, flags, message):
  command = ['submit', 'batch', *PLACE, *JOB, *flags, '--print_request']
  assert message in influence(*command, '--', *FIT).error_line


@pytest.mark.parametrize(
  'flags',
  [
    ['--accelerator', 'tpu-v6e-slice'],
    ['--accelerator', 'nvidia-l4', '--topology', '2x4'],
    ['--topology', '2x4'],
  ],
)
def test_topology_is_of_tpus(influence, flags):
  command = ['submit', 'kubernetes', *JOB, *flags]
  line = influence(*command, '--', *FIT).error_line
  assert 'a TPU needs a topology, such as 2x4' in line


@pytest.fixture(name='api')
def fixture_api():
  """A stand-in that takes each job name once."""
  received = {}

  class Handler(server.BaseHTTPRequestHandler):
    def log_message(self, *_):
      pass

    def do_POST(self):
      body = self.rfile.read(int(self.headers['Content-Length']))
      name = self.path.partition('job_id=')[2]
      parent = self.path.removeprefix('/v1/').partition('?')[0]
      status, answer = 200, {'name': f'{parent}/{name}'}
      if name in received:
        error = {'code': 409, 'message': f'{name} already exists'}
        status, answer = 409, {'error': error}
      elif name == 'forbidden':
        error = {'code': 403, 'message': 'no permission'}
        status, answer = 403, {'error': error}
      else:
        received[name] = json.loads(body)
      data = json.dumps(answer).encode()
      self.send_response(status)
      self.send_header('Content-Length', str(len(data)))
      self.end_headers()
      self.wfile.write(data)

  stand_in = LoopbackServer(('localhost', 0), Handler)
  stand_in.start()
  yield f'http://localhost:{stand_in.server_port}', received
  stand_in.shutdown()


def test_job_is_sent(influence, api):
  endpoint, received = api
  command = ['submit', 'batch', *PLACE, '--batch_endpoint', endpoint, *JOB]
  sent = influence(*command, '--json', '--', *FIT)
  assert sent.json['job'] == 'projects/p/locations/us-central1/jobs/fit'
  shown = influence(*command, '--print_request', '--json', '--', *FIT)
  assert received == {'fit': shown.json['request']}
  twice = influence(*command, '--', *FIT)
  assert 'answers 409: fit already exists; choose another' in twice.error_line
  refused = influence(*command, '--job_name', 'forbidden', '--', *FIT)
  assert 'Cloud Batch answers 403: no permission' in refused.error_line
  assert refused.status == ExitStatus.FAILED


def test_network_and_credentials_that_fail_are_told(influence, monkeypatch):
  monkeypatch.setenv('GOOGLE_APPLICATION_CREDENTIALS', '/absent')
  command = ['submit', 'batch', *PLACE, *JOB]
  assert 'no Google credentials' in influence(*command, '--', *FIT).error_line
  nowhere = ['--batch_endpoint', 'http://localhost:1']
  line = influence(*command, *nowhere, '--', *FIT).error_line
  assert 'Cloud Batch cannot be reached' in line

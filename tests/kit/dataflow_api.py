"""A stand-in for Dataflow on loopback: it runs what is submitted, here.

The pipeline is read from where it was staged and run by Beam's local runner, so
that a job is done only if what was sent is whole.
"""

import dataclasses
from http import server
import json
import re
import threading
import urllib.parse

from apache_beam.options import pipeline_options
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from google.cloud import dataflow_v1beta3 as dataflow

from pipeline.storage import files as storage
from tests.kit import object_store

_JOBS = re.compile(r'/v1b3/projects/([^/]+)/locations/([^/]+)/jobs')
_LAUNCH = re.compile(
  r'/v1b3/projects/([^/]+)/locations/([^/]+)/flexTemplates:launch'
)


@dataclasses.dataclass
class Job:
  """A job that was sent."""

  content: dict
  state: str = 'JOB_STATE_PENDING'
  error: str = ''
  counters: dict = dataclasses.field(default_factory=dict)

  @property
  def is_active(self) -> bool:
    return self.state in ('JOB_STATE_PENDING', 'JOB_STATE_RUNNING')


class DataflowApi:
  """The server.

  Attributes:
    endpoint: its URL.
    jobs: by id, in order.
    launched: parameters of the templates that were launched.
    forbidden: answers 403 to everything while it is set.
    is_held: jobs wait while it is set.
  """

  def __init__(self):
    self.jobs: dict[str, Job] = {}
    self.launched: list[dict] = []
    self.forbidden = False
    self.is_held = False
    self._is_closed = False
    self._threads: list[threading.Thread] = []
    api = self

    class Handler(server.BaseHTTPRequestHandler):
      def log_message(self, *_):
        pass

      def do_GET(self):
        api.answer(self, b'')

      def do_POST(self):
        api.answer(
          self, self.rfile.read(int(self.headers.get('Content-Length', 0)))
        )

    self._server = object_store.LoopbackServer(('localhost', 0), Handler)
    self._server.start()
    self.endpoint = f'http://localhost:{self._server.server_port}'

  def close(self) -> None:
    """Ends with all jobs: those held never run, the others are waited for."""
    self._is_closed = True
    for thread in self._threads:
      thread.join()
    self._server.shutdown()

  def answer(self, handler: server.BaseHTTPRequestHandler, body: bytes) -> None:
    path = urllib.parse.urlsplit(handler.path).path
    status, reply = self._reply(handler.command, path, json.loads(body or '{}'))
    data = json.dumps(reply).encode()
    handler.send_response(status)
    handler.send_header('Content-Type', 'application/json')
    handler.send_header('Content-Length', str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)

  def _reply(self, method: str, path: str, content: dict) -> tuple[int, dict]:
    if self.forbidden:
      return _error(403, 'PERMISSION_DENIED', 'caller lacks a permission')
    if method == 'POST' and _JOBS.fullmatch(path):
      return self._create(content)
    if method == 'POST' and _LAUNCH.fullmatch(path):
      parameter = content['launchParameter']
      self.launched.append(parameter)
      job = Job({'name': parameter['jobName']})
      return 200, {'job': self._add(job)}
    job_id = path.split('/jobs/')[-1].split('/')[0]
    if job_id not in self.jobs:
      return _error(404, 'NOT_FOUND', f'no job {job_id}')
    job = self.jobs[job_id]
    if path.endswith('/messages'):
      return 200, {'jobMessages': _messages(job)}
    if path.endswith('/metrics'):
      return 200, {'metrics': _metrics(job)}
    return 200, self._shown(job_id)

  def _create(self, content: dict) -> tuple[int, dict]:
    for job_id, job in self.jobs.items():
      if job.content['name'] == content['name'] and job.is_active:
        # The service answers with the active job, whose request id differs.
        return 200, self._shown(job_id)
    job = Job(named(content))
    shown = self._add(job)
    thread = threading.Thread(target=self._run, args=[job], daemon=True)
    self._threads.append(thread)
    thread.start()
    return 200, shown

  def _add(self, job: Job) -> dict:
    job_id = f'2026-01-01_00_00_00-{len(self.jobs)}'
    self.jobs[job_id] = job
    return self._shown(job_id)

  def _shown(self, job_id: str) -> dict:
    job = self.jobs[job_id]
    return {
      'id': job_id,
      'name': job.content['name'],
      'currentState': job.state,
      'createTime': '2026-01-01T00:00:00Z',
      'currentStateTime': '2026-01-01T00:01:00Z',
      'clientRequestId': job.content.get('clientRequestId', ''),
    }

  def _run(self, job: Job) -> None:
    while self.is_held:
      if self._is_closed:
        return
      threading.Event().wait(0.05)
    job.state = 'JOB_STATE_RUNNING'
    try:
      result = run_staged(job.content)
      counters = result.metrics().query()['counters']
      job.counters = {x.key.metric.name: x.committed for x in counters}
      job.state = 'JOB_STATE_DONE'
    except Exception as error:  # As the service does, whatever it was.
      job.error = str(error)
      job.state = 'JOB_STATE_FAILED'


def named(content: dict) -> dict:
  """A job as JSON with enums by name, which clients may send as numbers."""
  message = dataflow.Job.from_json(json.dumps(content))
  return json.loads(dataflow.Job.to_json(message, use_integers_for_enums=False))


def staged_pipeline(content: dict) -> beam_runner_api_pb2.Pipeline:
  """The pipeline of a job, from where it was staged."""
  options = content['environment']['sdkPipelineOptions']['options']
  url = options['pipelineUrl']
  return beam_runner_api_pb2.Pipeline.FromString(storage.read_bytes(url))


def run_staged(content: dict):
  """Runs a job's pipeline in this process instead of its container."""
  pipeline = staged_pipeline(content)
  for environment in pipeline.components.environments.values():
    environment.Clear()
    environment.urn = python_urns.EMBEDDED_PYTHON
  return fn_runner.FnApiRunner().run_via_runner_api(
    pipeline, pipeline_options.PipelineOptions([])
  )


def _messages(job: Job) -> list[dict]:
  texts = [('JOB_MESSAGE_DEBUG', 'a detail'), ('JOB_MESSAGE_BASIC', 'started')]
  if job.error:
    texts.append(('JOB_MESSAGE_ERROR', job.error))
  return [
    {'id': str(number), 'messageImportance': kind, 'messageText': text}
    for number, (kind, text) in enumerate(texts)
  ]


def _metrics(job: Job) -> list[dict]:
  return [
    {
      'name': {'origin': 'user', 'name': name, 'context': context},
      'scalar': value + extra,
    }
    for name, value in job.counters.items()
    for context, extra in (({}, 0), ({'tentative': 'true'}, 7))
  ]


def _error(code: int, status: str, message: str) -> tuple[int, dict]:
  error = {'code': code, 'status': status, 'message': message}
  return code, {'error': error}

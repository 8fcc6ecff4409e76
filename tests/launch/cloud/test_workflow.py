"""The workflow of a schedule on Google Cloud, run by a small interpreter."""

import base64
import json

from google.cloud import batch_v1
import pytest
import yaml

from tests.conftest import ROOT
from tests.kit import workflow_interpreter


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


# As the API knows them; a job that is being cancelled is still at work.
ENDED = ('SUCCEEDED', 'FAILED', 'CANCELLED')
AT_WORK = [
  state.name
  for state in batch_v1.JobStatus.State
  if state.name not in ENDED and state.value
]


def test_workflow_waits_for_every_end():
  assert len(AT_WORK) == 5
  cloud = Cloud([*AT_WORK, 'CANCELLED'])
  with pytest.raises(
    workflow_interpreter.WorkflowError, match='ended as CANCELLED'
  ):
    cloud.run()
  assert cloud.states == []


@pytest.mark.parametrize('state', AT_WORK)
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

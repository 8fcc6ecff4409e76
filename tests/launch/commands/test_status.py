"""What `influence status` says of a job, and by its exit status."""

import pytest

from launch.output.exit_status import ExitStatus

dataflow_api = pytest.importorskip(
  'tests.kit.dataflow_api', reason="needs the extra 'dataflow'"
)

PLACE = ['--project', 'my-project', '--region', 'us-central1']


@pytest.fixture(name='api')
def fixture_api():
  api = dataflow_api.DataflowApi()
  yield api
  api.close()


@pytest.mark.parametrize('more', [[], ['--follow']])
@pytest.mark.parametrize(
  ('state', 'message'),
  [
    ('JOB_STATE_FAILED', 'failed: it does not say why; submit it again'),
    ('JOB_STATE_CANCELLED', 'was cancelled'),
    ('JOB_STATE_DRAINED', 'was drained'),
    ('JOB_STATE_UPDATED', 'was replaced by another one'),
  ],
)
def test_only_a_job_that_is_done_is_success(
  influence, api, state, message, more
):
  api.jobs['j'] = dataflow_api.Job({'name': 'project'}, state)
  command = ['status', 'j', *PLACE, '--dataflow_endpoint', api.endpoint]
  found = influence(*command, *more)
  assert found.status == ExitStatus.FAILED
  assert f'job project (j) {message}' in found.error_line
  api.jobs['j'].state = 'JOB_STATE_DONE'
  assert influence(*command, *more).status == 0


def test_job_at_work_is_told_without_following(influence, api):
  api.jobs['j'] = dataflow_api.Job({'name': 'project'}, 'JOB_STATE_CANCELLING')
  command = ['status', 'j', *PLACE, '--dataflow_endpoint', api.endpoint]
  assert 'JOB_STATE_CANCELLING' in influence(*command).stdout
